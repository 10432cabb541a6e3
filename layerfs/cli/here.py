"""What a store has of an image, read and kept without trio, HTTP or workers."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import click

from layerfs.catalog.documents import DocumentReader, ImageDocuments
from layerfs.cli.opening import open_store
from layerfs.errors import LayerfsError, PlatformMissing, StoreError, StoreFull
from layerfs.oci import Digest, Image, ImageReference, Manifest, Platform, stack_digest
from layerfs.oci.config import UNKNOWN
from layerfs.settings import Settings
from layerfs.store import ImageStorage, LayerDir
from layerfs.store.records import Merger


@contextmanager
def opened(settings: Settings) -> Iterator[ImageStorage]:
    """Yield the store; remove behind the block what dead processes left. Raises what `open_store` does."""
    with open_store(settings) as storage:
        try:
            yield storage
        finally:
            if not storage.readonly:
                with suppress(StoreError):  # leftovers cost room and nothing else
                    storage.sweep_staged()


def image_here(
    settings: Settings, storage: ImageStorage, reference: ImageReference
) -> tuple[Digest, Image] | None:
    """Return what *reference* names, and its image, if the documents are here; damaged ones are not."""
    try:
        entry = None if reference.digest else storage.refs.read(reference)
        digest = entry.digest if entry else reference.digest
        if digest is None:
            return None
        found = DocumentReader(storage, settings.preferred_platform).read(reference.repository, digest)
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
        if one is not None and str(layer.diff_id) in one.record.layer.diff_ids
    ]
    return sound if len(sound) == len(found) else None


def image_of(storage: ImageStorage, manifest: Manifest, wanted: Platform | None) -> Image:
    """Pair a manifest with its config, both in the store; warn of an image for another machine.

    Raises UnsupportedImage for an artifact, PlatformMissing for an image of another platform than was said.
    """
    manifest.require_image()
    image = Image.of(manifest, storage.load_config(manifest.config.digest))
    require_platform(image, wanted)
    return image


def require_platform(image: Image, wanted: Platform | None) -> None:
    """Warn of an image for another machine. Raises PlatformMissing for one of another than was *wanted*."""
    found = image.config.platform
    usual = wanted or Platform.of_this_machine()
    if found.os != UNKNOWN and found not in usual.candidates():
        if wanted is not None:
            raise PlatformMissing(
                f"{image.manifest.digest}: no image for {wanted} (it has: {found}); "
                "try another --platform, or none"
            )
        click.echo(
            f"layerfs: {image.manifest.digest}: an image for {found} alone (this is {usual})", err=True
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
                name = f"command-{os.getpid()}-{digest.short_id}"
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
