"""Scratch directories of writable overlays: made for one mount, removed with it.

``overlays/<32 hex>/`` of the store holds ``upper``, ``work`` and ``target``, a link to the directory that the
overlay was made for. Never removes one that a mount in any namespace names.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from layerfs.errors import StoreError
from layerfs.host.oserrors import disk_errors
from layerfs.store.disk import make_directories
from layerfs.store.layout import StoreLayout
from layerfs.store.removal import remove_tree
from layerfs.store.usage import mounts_with


@dataclass(frozen=True, slots=True)
class Scratch:
    """What one overlay writes into."""

    path: Path

    @property
    def upper(self) -> Path:
        """What is written to the overlay."""
        return self.path / "upper"

    @property
    def work(self) -> Path:
        """Overlayfs's own."""
        return self.path / "work"

    @property
    def is_used(self) -> bool:
        """Whether a mount uses it, in any namespace that can be read."""
        return bool(mounts_with(os.fsencode(self.path.name)))

    def remove(self) -> None:
        """Remove it with everything in it. Raises StoreError, also if a mount uses it."""
        if self.is_used:
            raise StoreError(
                f"{self.path}: in use by a mount, maybe of another mount namespace (not removed)"
            )
        with disk_errors(f"{self.path}: cannot remove"):
            remove_tree(self.path)


def make_scratch(images_dir: Path, target: bytes, root: Path) -> Scratch:
    """Make the scratch of an overlay at *target*; *root* has the attributes that its root is to show.

    Raises StoreFull, StoreReadOnly, StoreError.
    """
    scratch = Scratch(StoreLayout(images_dir).overlays / secrets.token_hex(16))
    with disk_errors(f"{scratch.path}: cannot make"):
        make_directories(scratch.path, 0o700, 0o700)
        os.symlink(target, scratch.path / "target")
        scratch.work.mkdir()
        scratch.upper.mkdir()
        status = root.stat()
        os.chown(scratch.upper, status.st_uid, status.st_gid)
        shutil.copystat(root, scratch.upper)
    return scratch


def all_scratches(images_dir: Path) -> list[Scratch]:
    """Return all scratches of a store, mounted or not. Raises StoreError."""
    directory = StoreLayout(images_dir).overlays
    with disk_errors(f"{directory}: cannot read"):
        return [Scratch(path) for path, _ in _targets(directory)]


def scratches_of(images_dir: Path, target: bytes) -> list[Scratch]:
    """Return the scratches that were made for overlays at *target*, mounted or not. Raises StoreError."""
    directory = StoreLayout(images_dir).overlays
    with disk_errors(f"{directory}: cannot read"):
        return [Scratch(path) for path, made_for in _targets(directory) if made_for == target]


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
