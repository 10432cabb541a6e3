"""Overlays that are unmounted while processes are in them: what they are made of stays in the store."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from layerfs.errors import MountError
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.mounts import Mount
from layerfs.host.oserrors import disk_errors
from layerfs.store.disk import make_directories
from layerfs.store.layout import StoreLayout
from layerfs.store.locks import Locks
from layerfs.store.overlays import OverlayMount
from layerfs.store.removal import remove_tree
from layerfs.store.scratch import Scratch
from layerfs.store.usage import lower_directories


def detach(target: Mountpoint, found: Mount, *, keep: bool) -> bool:
    """Unmount the overlay *found* at *target*, even while it is used.

    With *keep*, for one without a scratch, all that it is made of stays in its store until the next boot if
    it was used; True if that is so. Raises MountError, StoreFull, StoreReadOnly, StoreError.
    """
    try:
        target.unmount()
        return False
    except MountError:  # in use; if it is something else, the second time says so, too
        pass
    overlay = OverlayMount.of(found) if keep else None
    if overlay is not None and overlay.store is not None:
        lowers = list(lower_directories(found))
        return _keep_if(lambda: target.unmount(lazy=True), overlay.store, found.point, lowers)
    target.unmount(lazy=True)
    return False


def _keep_if(detached: Callable[[], bool], images_dir: Path, target: bytes, lowers: Sequence[bytes]) -> bool:
    """Keep *lowers* of an overlay at *target* if it is *detached*, not before nobody sees it any more.

    The kernel tells nobody how long that one lives.
    """
    layout = StoreLayout(images_dir)
    path = layout.overlays / os.urandom(16).hex()
    lock = Locks(layout.lock).take(path)
    kept = False
    try:
        with disk_errors(f"{path}: cannot make"):
            make_directories(path, 0o700, 0o700)
            os.symlink(target, path / "target")
        Scratch(path, target, lock).note([os.fsdecode(lower) for lower in lowers])
        kept = detached()
    finally:
        try:
            if not kept:  # all have left meanwhile, or it is still mounted
                with disk_errors(f"{path}: cannot remove"):
                    remove_tree(path)
        finally:
            lock.release()
    return kept
