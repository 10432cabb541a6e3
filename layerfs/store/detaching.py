"""Overlays that are unmounted while processes are in them: what they are made of stays in the store."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from layerfs.errors import MountError
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.mounts import Mount
from layerfs.host.oserrors import disk_errors
from layerfs.store.overlays import OverlayMount
from layerfs.store.removal import remove_tree
from layerfs.store.scratch import new_scratch
from layerfs.store.usage import lower_directories


def detach(target: Mountpoint, found: Mount, *, keep: bool) -> bool:
    """Unmount the overlay *found* at *target*, even while it is used.

    With *keep*, for one without a scratch, all that it is made of stays in its store until the next boot if
    it was used; True if that is so. Raises MountError, StoreFull, StoreReadOnly, StoreError.
    """
    overlay = OverlayMount.of(found) if keep else None
    if overlay is None or overlay.store is None:
        target.unmount(lazy=True)
        return False
    try:
        target.unmount()
        return False
    except MountError:  # in use; if it is something else, the second time says so, too
        pass
    lowers = list(lower_directories(found))
    return _keep_if(lambda: target.unmount(lazy=True), overlay.store, found.point, lowers)


def _keep_if(detached: Callable[[], bool], images_dir: Path, target: bytes, lowers: Sequence[bytes]) -> bool:
    """Keep *lowers* of an overlay at *target* if it is *detached*, not before nobody sees it any more.

    The kernel tells nobody how long that one lives.
    """
    scratch = new_scratch(images_dir, target)
    kept = False
    try:
        scratch.make()
        scratch.note([os.fsdecode(lower) for lower in lowers])
        kept = detached()
    finally:
        try:
            if not kept:  # all have left meanwhile, or it is still mounted
                with disk_errors(f"{scratch.path}: cannot remove"):
                    remove_tree(scratch.path)
        finally:
            scratch.lock.release()
    return kept
