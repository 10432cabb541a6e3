"""What containers on lazy layers need of a store whose daemon has gone, or goes: overlays outlive it."""

import logging
import os

from layerfs.bells import bell_mount
from layerfs.catalog.known import KnownImages
from layerfs.errors import LayerfsError
from layerfs.needs import LayersNeed
from layerfs.oci import Digest, Platform
from layerfs.store import ImageStorage
from layerfs.store.overlays import overlays_on
from layerfs.store.usage import read_usage

log = logging.getLogger(__name__)


def tocs_in_use(storage: ImageStorage) -> set[Digest]:
    """Return the TOCs whose skeletons mounts use, detached ones included. Raises OSError, StoreError."""
    tocs, _ = storage.lazy.skeletons.names()
    return set(filter(storage.usage().uses, tocs)) if tocs else set()


def tocs_in_view(storage: ImageStorage) -> set[Digest]:
    """Return the TOCs whose skeletons mounts of some namespace show. Raises OSError, StoreError."""
    tocs, _ = storage.lazy.skeletons.names()
    return set(filter(read_usage().uses, tocs)) if tocs else set()


def unfinished(storage: ImageStorage, platform: Platform) -> list[LayersNeed]:
    """Return the needs for layers whose skeletons mounts use. Raises OSError, StoreError, ImageError."""
    used = tocs_in_use(storage)
    if not used:
        return []
    needs = KnownImages(storage, platform).views.needs_of(used)
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
            overlay.point: sum(here.of_files - here.files for here in map(storage.lazy.count, overlay.tocs))
            for overlay in overlays_on(storage.images_dir)
        }
        # Other mounts are looked at last, and only for a reason: a look at one is a use, and whoever unmounts
        # several in a row would find the next one busy.
        if not any(missing.values()) or bell_mount(storage.images_dir) is not None:
            return  # a mount that there is has seen as it began what they need
        for point, count in missing.items():
            if count:
                log.warning(
                    "%s: cut off from %d files that are not here and that no mount is asked for any more "
                    "(layerfs status --heal, or a new mount, has them)",
                    os.fsdecode(point),
                    count,
                )
    except (LayerfsError, OSError) as exc:
        log.debug("overlays could not be looked for: %s", exc)
