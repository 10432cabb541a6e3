"""From a verb to the asynchronous machinery and back. Imported inside the verbs: it brings trio and httpx."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from layerfs import app as wiring
from layerfs.errors import NotInStore
from layerfs.fetch import Provider
from layerfs.oci import Digest, Image, ImageReference, Manifest
from layerfs.settings import Settings
from layerfs.store import ImageStorage
from layerfs.view.needs import DocumentNeed, TagNeed

T = TypeVar("T")

Work = Callable[[ImageStorage, Provider], Awaitable[T]]


def with_provider(settings: Settings, work: Work[T]) -> T:
    """Run *work* with the store and a provider that fetches into it. Raises LayerfsError."""

    async def main() -> T:
        storage = ImageStorage(settings.store)
        async with wiring.providing(settings, storage) as provider:
            return await work(storage, provider)

    return trio.run(main)


async def pinned_digest(storage: ImageStorage, provider: Provider, reference: ImageReference) -> Digest:
    """Return what *reference* names: by its digest, else as pinned, else as the registry says now."""
    if reference.digest is not None:
        return reference.digest
    assert reference.tag is not None
    entry = storage.refs.read(reference.repository, reference.tag)
    if entry is None:
        await provider.obtain(TagNeed(reference))
        entry = storage.refs.read(reference.repository, reference.tag)
    if entry is None:
        raise NotInStore(f"{reference}: resolved, but removed again meanwhile; try again")
    return entry.digest


async def described(
    storage: ImageStorage, provider: Provider, reference: ImageReference, digest: Digest
) -> Manifest:
    """Have the documents of *digest* in the store; return the manifest for this platform."""
    await provider.obtain(DocumentNeed(reference.repository, digest))
    return await provider.documents.image(reference.repository, digest)


def image_of(storage: ImageStorage, manifest: Manifest) -> Image:
    """Pair a manifest of the store with its config. Raises UnsupportedImage for an artifact."""
    manifest.require_image()
    return Image.of(manifest, storage.load_config(manifest.config.digest))
