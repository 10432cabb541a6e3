"""Lazy layers that containers use and that are not whole: their daemon may have gone, and they wait."""

from layerfs.catalog.known import KnownImages
from layerfs.needs import LayersNeed
from layerfs.oci import Platform
from layerfs.store import ImageStorage


def unfinished(storage: ImageStorage, platform: Platform) -> list[LayersNeed]:
    """Return the needs for layers whose skeletons mounts use. Raises OSError, StoreError, ImageError."""
    tocs, _ = storage.lazy.skeletons.names()
    usage = storage.usage() if tocs else None
    used = {toc for toc in tocs if usage is not None and usage.uses(toc)}
    if not used:
        return []
    needs = KnownImages(storage, platform).views.needs_of(used)
    return [need for need in needs if isinstance(need, LayersNeed)]
