"""Scratch directories of overlays: made for one mount, removed with it.

``overlays/<32 hex>/`` of the store holds ``upper``, ``work`` and ``target``, a link to the directory that the
overlay was made for; that of a lazy one also its cover. ``lowers`` has the boot, and a line for each lower
directory; ``image`` which image the files of a lazy one come from.

Never removes one that a mount in any namespace names, nor one whose overlay was detached while a process is
in it. No table of mounts shows such an overlay any more, so the kernel is asked whether it lives
(`layerfs.host.overlay.is_in_use`): a read-only overlay has an upper directory for that alone. What its lower
directories are the scratch says.

To ask takes the kernel's mark for a moment, and a mount that begins then never has it. So who asks holds the
lock of the scratch, as who mounts does, who never waits for it: the name is new.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from layerfs.errors import InvalidReference, StoreError, StoreReadOnly
from layerfs.host import boot_id
from layerfs.host.oserrors import disk_errors
from layerfs.host.overlay import is_in_use
from layerfs.layer.paths import shown
from layerfs.oci import Digest, ImageReference, Repository
from layerfs.store.disk import make_directories
from layerfs.store.layout import StoreLayout
from layerfs.store.locks import ByteLock, Locks
from layerfs.store.removal import remove_tree
from layerfs.store.usage import MountUse, Usage, mounts_with, read_usage

_LOWERS: Final = "lowers"
_IMAGE: Final = "image"
_EMPTY: Final = "empty"
_ASKED_SECONDS: Final = 2.0
"""How long to wait for a scratch that another process may just ask the kernel about, which takes moments."""

log = logging.getLogger(__name__)


class Scratch(msgspec.Struct, frozen=True):
    """What one overlay writes into."""

    path: Path
    target: bytes
    """The directory that the overlay was made for."""
    lock: ByteLock
    """Held by who made it, until it is mounted or its process ends; then by who asks or removes."""

    @property
    def place(self) -> str:
        """Where the overlay was made for, to show."""
        return shown(self.target)

    @property
    def upper(self) -> Path:
        """What is written to the overlay."""
        return self.path / "upper"

    @property
    def work(self) -> Path:
        """Overlayfs's own."""
        return self.path / "work"

    def make(self) -> None:
        """Make its directory, and what tells where its overlay was made for. Raises StoreFull, StoreError."""
        with disk_errors(f"{self.path}: cannot make"):
            make_directories(self.path, 0o700, 0o700)
            os.symlink(self.target, self.path / "target")

    def note(self, lowers: Iterable[str]) -> None:
        """Write down what its overlay is made of, before that is mounted. Raises StoreError."""
        with disk_errors(f"{self.path}: cannot write"):
            lines = [boot_id(), *lowers]
            (self.path / _LOWERS).write_bytes(b"".join(os.fsencode(line) + b"\n" for line in lines))

    def note_image(self, repository: Repository, manifest: Digest) -> None:
        """Write down where the files of its overlay come from that are not here. Raises StoreError."""
        with disk_errors(f"{self.path}: cannot write"):
            (self.path / _IMAGE).write_text(f"{repository}@{manifest}\n", encoding="utf-8")

    def image(self) -> tuple[Repository, Digest] | None:
        """Return what `note_image` wrote; None if nobody has."""
        try:
            found = ImageReference.parse((self.path / _IMAGE).read_text(encoding="utf-8").rstrip("\n"))
        except (OSError, UnicodeDecodeError, InvalidReference):
            return None
        return None if found.digest is None else (found.repository, found.digest)

    def has_upper_at(self, upper: Path) -> None:
        """Have the overlay's upper directory lie at *upper*, of its user. Raises StoreError."""
        with disk_errors(f"{self.path}: cannot write"):
            self.upper.rmdir()
            self.upper.symlink_to(upper.resolve())  # it may come as a descriptor

    @contextmanager
    def upper_alone(self) -> Iterator[None]:
        """Keep the upper directory of a user from others, who may have another scratch for the same.

        To be held by who mounts, and by who asks. Raises StoreError, OSError.
        """
        lock = Locks(StoreLayout(self.path.parent.parent).lock).upper(self.upper)
        lock.acquire(_ASKED_SECONDS)
        try:
            yield
        finally:
            lock.release()

    def lowers(self) -> list[bytes]:
        """Return the lower directories that its overlay has if it lives. Raises OSError."""
        try:
            boot, *lowers = (self.path / _LOWERS).read_bytes().splitlines()
        except (FileNotFoundError, ValueError):  # removed meanwhile, or made by an older version
            return []
        return lowers if boot.decode(errors="replace") == boot_id() else []

    def remove(self) -> bool:
        """Remove it with everything in it; False if its overlay was detached and a process is still in that.

        Raises StoreError, also if a mount uses it, or is about to.
        """
        failures = remove_scratches([self])
        if failures:
            raise failures[self.path]
        return not os.path.lexists(self.path)

    def user(self) -> str:
        """Say who uses it, or is about to; empty if nobody does."""
        if use := self._use():
            return f"{use} uses it"
        if not self.lock.try_acquire():
            return "being mounted"
        try:
            if not self._is_detached():
                return ""
        finally:
            self.lock.release()
        known = "a process is" if self.upper.is_dir() else "a process may be until the next boot"
        return f"{known} in its overlay, which was detached"

    def _use(self) -> MountUse | None:
        return mounts_with([self.path.name]).get(self.path.name)

    def take(self) -> None:
        """Keep others from mounting or removing it. Raises StoreError if one is about to mount it."""
        if not self.lock.held and not self.lock.try_for(_ASKED_SECONDS):
            raise StoreError(f"{self.path}: being mounted by another process (not removed)")

    def is_used_unseen(self) -> bool:
        """Say whether its overlay, of which no mount is seen, lives all the same, or may in a moment."""
        try:
            if not self.lock.try_acquire():  # being mounted, as nobody may ask meanwhile
                return True
        except StoreReadOnly:  # nobody here could remove it
            return True
        try:
            return self._is_detached()
        finally:
            self.lock.release()

    def _is_detached(self, *, going: bool = False) -> bool:
        """Say whether its overlay, of which no mount is seen, lives. To be called with the lock held.

        If it is *going* to be removed something may be made in it, and the kernel has less to log. Without an
        upper directory nobody knows: then it does until the next boot. False also where this process may not
        ask, which may not mount either.
        """
        try:
            if not self.upper.is_dir():
                return bool(self.lowers())
            if self.upper.is_symlink():  # its user's is not touched
                with self.upper_alone():
                    return is_in_use(os.fsencode(self.upper))
            aside = None
            if going:
                (self.path / _EMPTY).mkdir(exist_ok=True)
                aside = os.fsencode(self.work), os.fsencode(self.path / _EMPTY)
            return is_in_use(os.fsencode(self.upper), aside)
        except StoreError:  # with that directory another one is being mounted
            return True
        except OSError as exc:
            log.debug("%s: whether its overlay lives cannot be asked: %s", self.path, exc)
            return False

    def remove_unless(self, use: MountUse | None) -> None:
        """Remove it where *use*, what was seen since it was taken, is nobody's. Raises StoreError.

        It stays as long as its overlay lives out of sight.
        """
        if use is not None:
            raise StoreError(
                f"{self.path}: in use by {use}, maybe in another mount namespace (not removed; once that has "
                "ended, layerfs overlay --umount or layerfs gc removes it)"
            )
        if self._is_detached(going=True):
            log.info("%s: kept for a process that is in the overlay that was at %r", self.path, self.target)
            return
        with disk_errors(f"{self.path}: cannot remove"):
            remove_tree(self.path)


def usage_of(images_dir: Path) -> Usage:
    """Return which things of a store are in use, by mounts that are seen and overlays that live unseen."""
    usage = read_usage()
    try:
        for scratch in all_scratches(images_dir):
            unseen = scratch.path.name.encode() not in usage.scratches
            if unseen and (lowers := scratch.lowers()) and scratch.is_used_unseen():
                usage = usage.with_overlay(scratch.path.name, lowers, scratch.target)
    except (OSError, StoreError) as exc:
        return msgspec.structs.replace(usage, hidden=usage.hidden or str(exc))
    return usage


def remove_scratches(scratches: Sequence[Scratch]) -> dict[Path, StoreError]:
    """Remove scratches with everything in them, and return why some stay: a mount uses them, or is about to.

    Those of overlays that live out of sight stay, too, and are for a collection to remove.

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


def new_scratch(images_dir: Path, target: bytes) -> Scratch:
    """Return the scratch of an overlay at *target*, with its lock held, before anything of it is made.

    Raises StoreFull, StoreReadOnly, StoreError.
    """
    layout = StoreLayout(images_dir)
    path = layout.overlays / os.urandom(16).hex()
    return Scratch(path, target, Locks(layout.lock).take(path))


def make_scratch(images_dir: Path, target: bytes, root: Path) -> Scratch:
    """Make the scratch of an overlay at *target*; *root* has the attributes that its root is to show.

    Raises StoreFull, StoreReadOnly, StoreError.
    """
    import shutil

    scratch = new_scratch(images_dir, target)
    scratch.make()
    with disk_errors(f"{scratch.path}: cannot make"):
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
