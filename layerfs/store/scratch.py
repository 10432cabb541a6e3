"""Scratch directories of writable overlays: made for one mount, removed with it.

``overlays/<32 hex>/`` of the store holds ``upper``, ``work`` and ``target``, a link to the directory that the
overlay was made for. Never removes one that a mount in any namespace names.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from layerfs.errors import StoreError
from layerfs.host.oserrors import disk_errors
from layerfs.store.disk import make_directories
from layerfs.store.layout import StoreLayout
from layerfs.store.locks import ByteLock, Locks
from layerfs.store.removal import remove_tree
from layerfs.store.usage import MountUse, mounts_with


class Scratch(msgspec.Struct, frozen=True):
    """What one overlay writes into."""

    path: Path
    target: bytes
    """The directory that the overlay was made for."""
    lock: ByteLock
    """Held by who made it, until it is mounted or its process ends."""

    @property
    def upper(self) -> Path:
        """What is written to the overlay."""
        return self.path / "upper"

    @property
    def work(self) -> Path:
        """Overlayfs's own."""
        return self.path / "work"

    def remove(self) -> None:
        """Remove it with everything in it. Raises StoreError, also if a mount uses it, or is about to."""
        failures = remove_scratches([self])
        if failures:
            raise failures[self.path]

    def user(self) -> str:
        """Say who uses it, or is about to; empty if nobody does."""
        if use := self._use():
            return f"{use} uses it"
        if not self.lock.try_acquire():
            return "being mounted"
        self.lock.release()
        return ""

    def _use(self) -> MountUse | None:
        return mounts_with([self.path.name]).get(self.path.name)

    def take(self) -> None:
        """Keep others from mounting or removing it. Raises StoreError if one is about to mount it."""
        if not self.lock.held and not self.lock.try_acquire():
            raise StoreError(f"{self.path}: being mounted by another process (not removed)")

    def remove_unless(self, use: MountUse | None) -> None:
        """Remove it where *use*, what was seen since it was taken, is nobody's. Raises StoreError."""
        if use is not None:
            raise StoreError(
                f"{self.path}: in use by {use}, maybe in another mount namespace (not removed; once that has "
                "ended, layerfs overlay --umount or layerfs gc removes it)"
            )
        with disk_errors(f"{self.path}: cannot remove"):
            remove_tree(self.path)


def remove_scratches(scratches: Sequence[Scratch]) -> dict[Path, StoreError]:
    """Remove scratches with everything in them, and return why some stay: a mount uses them, or is about to.

    The mounts of this machine are looked at once for all: with many it is that which takes long.
    """
    failures: dict[Path, StoreError] = {}
    taken: list[Scratch] = []
    try:
        for scratch in scratches:
            try:
                scratch.take()
                taken.append(scratch)
            except StoreError as exc:
                failures[scratch.path] = exc
        uses = mounts_with(scratch.path.name for scratch in taken)
        for scratch in taken:
            try:
                scratch.remove_unless(uses.get(scratch.path.name))
            except StoreError as exc:
                failures[scratch.path] = exc
    finally:
        for scratch in taken:
            scratch.lock.release()
    return failures


def make_scratch(images_dir: Path, target: bytes, root: Path) -> Scratch:
    """Make the scratch of an overlay at *target*; *root* has the attributes that its root is to show.

    Raises StoreFull, StoreReadOnly, StoreError.
    """
    import shutil

    layout = StoreLayout(images_dir)
    path = layout.overlays / os.urandom(16).hex()
    scratch = Scratch(path, target, Locks(layout.lock).take(path))
    with disk_errors(f"{scratch.path}: cannot make"):
        make_directories(scratch.path, 0o700, 0o700)
        os.symlink(target, scratch.path / "target")
        scratch.work.mkdir()
        scratch.upper.mkdir()
        status = root.stat()
        os.chown(scratch.upper, status.st_uid, status.st_gid)
        shutil.copystat(root, scratch.upper)
    return scratch


def scratches_of(images_dir: Path, target: bytes) -> list[Scratch]:
    """Return the scratches that were made for overlays at *target*, mounted or not. Raises StoreError."""
    return [scratch for scratch in all_scratches(images_dir) if scratch.target == target]


def all_scratches(images_dir: Path) -> list[Scratch]:
    """Return all scratches of a store, mounted or not. Raises StoreError."""
    layout = StoreLayout(images_dir)
    locks, directory = Locks(layout.lock), layout.overlays
    with disk_errors(f"{directory}: cannot read"):
        return [Scratch(path, made_for, locks.name(path)) for path, made_for in _targets(directory)]


def _targets(directory: Path) -> Iterator[tuple[Path, bytes]]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        try:
            yield directory / name, os.readlink(os.fsencode(directory / name / "target"))
        except FileNotFoundError:  # being made, or being removed
            continue
