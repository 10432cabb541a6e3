"""What containers on lazy layers need of a store whose daemon has gone, or goes: overlays outlive it."""

import logging
import os
from typing import Final

from layerfs.bells import bell_mounts, ring_of
from layerfs.catalog.known import KnownImages
from layerfs.errors import LayerfsError
from layerfs.needs import LayersNeed
from layerfs.oci import Digest, Platform
from layerfs.store import ImageStorage
from layerfs.store.overlays import overlays_on
from layerfs.store.scratch import all_scratches
from layerfs.store.usage import read_usage

_RING: Final = ring_of(b"")

log = logging.getLogger(__name__)


def tocs_in_use(storage: ImageStorage) -> set[Digest]:
    """Return the TOCs whose skeletons mounts use, detached ones included. Raises OSError, StoreError."""
    tocs, _ = storage.lazy.skeletons.names()
    return set(filter(storage.usage().uses, tocs)) if tocs else set()


def tocs_in_view(storage: ImageStorage) -> set[Digest]:
    """Return the TOCs whose skeletons mounts of some namespace show. Raises OSError, StoreError."""
    tocs, _ = storage.lazy.skeletons.names()
    return set(filter(read_usage().uses, tocs)) if tocs else set()


def cut_off(storage: ImageStorage, platform: Platform) -> list[LayersNeed]:
    """Return those of `unfinished` that are not here and that no mount is asked for any more.

    An overlay asks the mount that there was as it began, and no other. One that took the place of that has
    seen as it began what overlays need; one elsewhere may be older, and know of nothing. Raises as
    `unfinished` does.
    """
    tocs, _ = storage.lazy.skeletons.names()
    if not tocs or not all_scratches(storage.images_dir):  # as of every lazy overlay
        return []
    usage = storage.usage()
    missing = {toc for toc in tocs if usage.uses(toc) and _is_missing(storage, toc)}
    if not missing:
        return []
    rings = set(map(ring_of, bell_mounts(storage.images_dir)))
    left = {toc for toc in missing if not _are_asked(usage.beside.get(toc, frozenset()), rings)}
    return _needs(storage, platform, left)


def _are_asked(others: frozenset[bytes], rings: set[bytes]) -> bool:
    """Say whether all rings in the *others* of some overlays are *rings* that answer."""
    asked = {path for path in others if path.endswith(_RING)}
    return asked <= rings if asked else bool(rings)  # of an overlay that cannot be seen


def _is_missing(storage: ImageStorage, toc: Digest) -> bool:
    try:
        here = storage.lazy.count(toc)
    except LayerfsError:  # who would have it says why that cannot be
        return True
    return here.lacking > 0


def unfinished(storage: ImageStorage, platform: Platform) -> list[LayersNeed]:
    """Return the needs for layers whose skeletons mounts use. Raises OSError, StoreError, ImageError."""
    return _needs(storage, platform, tocs_in_use(storage))


def _needs(storage: ImageStorage, platform: Platform, tocs: set[Digest]) -> list[LayersNeed]:
    needs = KnownImages(storage, platform).views.needs_of(tocs) if tocs else ()
    return [need for need in needs if isinstance(need, LayersNeed)]


def waited_for(storage: ImageStorage, platform: Platform) -> list[LayersNeed]:
    """Return what `unfinished` does; nothing, and a line in the log, where that cannot be found out."""
    try:
        return unfinished(storage, platform)
    except (LayerfsError, OSError) as exc:
        log.warning("lazy layers that are in use could not be looked for: %s", exc)
        return []


def log_who_is_cut_off(storage: ImageStorage) -> None:
    """Say which overlays of this mount namespace no mount serves any more, before all of theirs is here."""
    try:
        missing = {
            overlay: sum(storage.lazy.count(toc).lacking for toc in overlay.tocs)
            for overlay in overlays_on(storage.images_dir)
        }
        # Other mounts are looked at last, and only for a reason: a look at one is a use, and whoever unmounts
        # several in a row would find the next one busy.
        rings = set(map(ring_of, bell_mounts(storage.images_dir))) if any(missing.values()) else set()
        for overlay, count in missing.items():
            if count and not _are_asked(overlay.others, rings):
                log.warning(
                    "%s: cut off from %d files that are not here and that no mount is asked for any more "
                    "(layerfs status --heal, or a new mount, has them)",
                    os.fsdecode(overlay.point),
                    count,
                )
    except (LayerfsError, OSError) as exc:
        log.debug("overlays could not be looked for: %s", exc)
