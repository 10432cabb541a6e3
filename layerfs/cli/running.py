"""From a verb to the asynchronous machinery and back. Imported inside the verbs: it brings trio and httpx."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from layerfs import app as wiring
from layerfs.errors import NotInStore
from layerfs.fetch import Provider
from layerfs.local import LocalOrigin
from layerfs.oci import Digest, Image, ImageReference, Manifest
from layerfs.registry import RegistryClient
from layerfs.settings import Settings
from layerfs.store import ImageStorage
from layerfs.view.needs import StackNeed, TagNeed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Machinery:
    """What a verb works with: the store, and who fetches into it."""

    storage: ImageStorage
    provider: Provider


def with_provider(
    settings: Settings, work: Callable[[Machinery], Awaitable[T]], local: LocalOrigin | None = None
) -> T:
    """Run *work* with the store and a provider that fetches into it. Raises LayerfsError.

    It fetches from registries, or from nothing but *local*.
    """

    async def main() -> T:
        storage = ImageStorage(settings.store)
        async with wiring.providing(settings, storage, local) as provider:
            return await work(Machinery(storage, provider))

    return trio.run(main)


def with_client(settings: Settings, work: Callable[[RegistryClient], Awaitable[T]]) -> T:
    """Run *work* with a registry client and no store. Raises LayerfsError."""

    async def main() -> T:
        async with wiring.asking(settings) as client:
            return await work(client)

    return trio.run(main)


async def pinned(machinery: Machinery, reference: ImageReference) -> Digest:
    """Return what *reference* names: by its digest, else as pinned, else as the registry says now."""
    if reference.digest is not None:
        return reference.digest
    assert reference.tag is not None
    refs = machinery.storage.refs
    entry = refs.read(reference.repository, reference.tag)
    if entry is None:
        await machinery.provider.obtain(TagNeed(reference))
        entry = refs.read(reference.repository, reference.tag)
    if entry is None:
        raise NotInStore(f"{reference}: resolved, but removed again meanwhile; try again")
    return entry.digest


async def manifest_of(machinery: Machinery, reference: ImageReference, digest: Digest) -> Manifest:
    """Have the documents of *digest* in the store; return the manifest for this platform."""
    return await machinery.provider.documents.image(reference.repository, digest)


def image_of(machinery: Machinery, manifest: Manifest) -> Image:
    """Pair a manifest with its config, both in the store. Raises UnsupportedImage for an artifact."""
    manifest.require_image()
    return Image.of(manifest, machinery.storage.load_config(manifest.config.digest))


async def fetch_stack(machinery: Machinery, reference: ImageReference, image: Image) -> list[str]:
    """Have all layers and the cover; return the native lower directories, topmost first."""
    await machinery.provider.obtain(StackNeed(reference.repository, image))
    cover = machinery.storage.cover([layer.descriptor.digest for layer in image.layers])
    if cover is None:
        raise NotInStore(f"{reference}: fetched, but removed again meanwhile; try again")
    return [str(cover), *(str(machinery.storage.layer_extracted_path(d)) for d in image.lower_order())]
