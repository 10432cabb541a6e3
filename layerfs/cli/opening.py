"""The store of a command, opened as the settings say."""

import os
from pathlib import Path

from layerfs import naming
from layerfs.errors import NotInStore
from layerfs.oci import ImageReference
from layerfs.settings import Settings
from layerfs.store import ImageStorage
from layerfs.store.layout import StoreLayout


def open_store(settings: Settings, *, make: bool = True) -> ImageStorage:
    """Open the store; with *make* make it where none is.

    Raises NotInStore, StoreMismatch, StoreFull, StoreReadOnly, StoreError.
    """
    if not make and not is_store(settings.store):
        raise NotInStore(
            f"{settings.store}: no store there (expected one that layerfs pull or mount has made; --store, "
            "LAYERFS_STORE and the configuration say where it is)"
        )
    return ImageStorage(settings.store, shared=settings.share_store, maker=settings.store_owner)


def reference_of(settings: Settings, text: str) -> ImageReference:
    """Return the reference that *text* is, or the image of the store that its digits mean.

    Raises InvalidReference; for digits what `open_store` raises, too.
    """
    from layerfs.catalog.names import is_id, named_reference

    if not is_id(text):
        return naming.reference(settings, text)
    with open_store(settings, make=False) as storage:
        return named_reference(storage, text, naming.parser(settings))


def is_store(path: Path) -> bool:
    """Say whether *path* is a store, or something of which the store itself says better what is wrong."""
    layout = StoreLayout(path)
    try:
        os.stat(f"{path}/.")  # noqa: PTH116 - a Path would drop the dot
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return any(map(os.path.lexists, (layout.owner, layout.refs, layout.local)))
