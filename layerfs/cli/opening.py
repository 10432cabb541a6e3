"""The store of a command, opened as the settings say."""

from layerfs.settings import Settings
from layerfs.store import ImageStorage


def open_store(settings: Settings) -> ImageStorage:
    """Open the store, or make it. Raises StoreMismatch, StoreFull, StoreReadOnly, StoreError."""
    return ImageStorage(settings.store, shared=settings.share_store, maker=settings.store_owner)
