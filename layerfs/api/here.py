"""What a store has of an image: layers and paths, and how both are kept from removal. No trio, no HTTP."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from typing import Final

from layerfs.catalog.documents import DocumentReader, ImageDocuments
from layerfs.errors import LayerfsError, PlatformMissing, StoreFull
from layerfs.oci import Digest, Image, ImageReference, Platform, stack_digest
from layerfs.oci.config import UNKNOWN
from layerfs.store import ImageStorage, LayerDir
from layerfs.store.records import Merger

_numbers: Final = count()
"""Names leases: two that work for the same image in one process do not end each other's."""


def image_here(
    storage: ImageStorage, reference: ImageReference, platform: Platform
) -> tuple[Digest, Image] | None:
    """Return what *reference* names, and its image, if the documents are here; damaged ones are not."""
    try:
        entry = None if reference.digest else storage.refs.read(reference)
        digest = entry.digest if entry else reference.digest
        if digest is None:
            return None
        found = DocumentReader(storage, platform).read(reference.repository, digest)
    except LayerfsError:
        return None
    return (digest, found.image) if isinstance(found, ImageDocuments) and found.image else None


def layers_here(storage: ImageStorage, image: Image) -> list[LayerDir] | None:
    """Return the layer directories of *image*, base first; None unless all are here and are what it claims.

    Whoever fetches what seems to be missing then is told what is wrong.
    """
    found = [storage.open_layer(layer.digest) for layer in image.layers]
    sound = [
        one
        for layer, one in zip(image.layers, found, strict=True)
        if one is not None
        and str(layer.diff_id) in one.record.layer.diff_ids
        and not (layer.place and storage.lazy.tocs.difference(layer.place.digest, layer.digest))
    ]
    return sound if len(sound) == len(found) else None


def runs_on(image: Image, platform: Platform) -> bool:
    """Say whether *image* is for *platform*, or says nothing of what it is for."""
    found = image.config.platform
    return found.os == UNKNOWN or found in platform.candidates()


def require_platform(image: Image, wanted: Platform | None) -> None:
    """Raise PlatformMissing if *image* is for another platform than was *wanted*."""
    if wanted is not None and not runs_on(image, wanted):
        raise PlatformMissing(
            f"{image.manifest.digest}: no image for {wanted} (it has: {image.config.platform}); "
            "try another --platform, or none"
        )


def stack_paths(storage: ImageStorage, image: Image, merger: Merger = "") -> list[str]:
    """Return the native lower directories of an image, topmost first, whether they are there or not."""
    cover = storage.cover_path([layer.digest for layer in image.layers], merger)
    return [str(cover), *(str(storage.layer_extracted_path(digest)) for digest in image.lower_order())]


@contextmanager
def kept_whole(storage: ImageStorage, digest: Digest, *more: Digest) -> Iterator[None]:
    """Keep *digest*, an image or a stack, and *more* from removal for the block: until they are named.

    Not on a full disk, or one that may only be read: what is there already is good enough for some commands.
    """
    with ExitStack() as held:
        if not storage.readonly:
            with suppress(StoreFull):
                name = f"command-{os.getpid()}-{next(_numbers)}-{digest.short_id}"
                held.enter_context(storage.lease(name, (digest, *more)))
        yield


@contextmanager
def kept(storage: ImageStorage, image: Image, merger: Merger, *, named: bool) -> Iterator[None]:
    """Keep the layers and the cover of *image* from removal for the block; if *named*, longer."""
    layers = [layer.digest for layer in image.layers]
    with kept_whole(storage, stack_digest(layers, merger), *layers):
        yield
        if named and not storage.readonly:
            storage.leases.name_stack(layers, merger)
