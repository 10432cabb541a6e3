"""From a verb to the asynchronous machinery and back. Imported inside the verbs: it brings trio."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import msgspec
import trio

from layerfs import app as wiring
from layerfs.cli import interrupts
from layerfs.cli.here import image_of, kept, stack_paths
from layerfs.cli.opening import open_store
from layerfs.errors import NotInStore, PlatformMissing, StoreError, StoreUnfit
from layerfs.fetch import Fetcher
from layerfs.fetch.tasks import background
from layerfs.gc.keeper import Keeper
from layerfs.needs import LayersNeed, StackNeed, TagNeed
from layerfs.oci import Digest, Image, ImageReference, Manifest, Platform, Tag
from layerfs.oci.image import ImageLayer
from layerfs.settings import Settings
from layerfs.store import ImageStorage, LayerDir
from layerfs.store.records import Merger

if TYPE_CHECKING:
    from layerfs.local.origin import LocalOrigin
    from layerfs.registry.client import RegistryClient

T = TypeVar("T")

log = logging.getLogger(__name__)


class Machinery(msgspec.Struct, frozen=True):
    """What a verb works with: the store, and who fetches into it."""

    storage: ImageStorage
    provider: Fetcher
    platform: Platform | None
    """What the user wants; None: what this machine runs, or what there is."""
    keeper: Keeper
    """Who knows whether there is room."""


def with_provider(
    settings: Settings, work: Callable[[Machinery], Awaitable[T]], local: "LocalOrigin | None" = None
) -> T:
    """Run *work* with the store and a provider that fetches into it. Raises LayerfsError.

    It fetches from registries, or from nothing but *local*.
    """

    async def main() -> T:
        storage = open_store(settings, make=not settings.offline or local is not None)
        keeper = wiring.keeper_of(settings, storage)
        async with wiring.providing(settings, storage, keeper, local) as provider, swept(storage):
            return await work(Machinery(storage, provider, settings.platform, keeper))

    return interrupts.run(main)


def with_client(settings: Settings, work: "Callable[[RegistryClient], Awaitable[T]]") -> T:
    """Run *work* with a registry client and no store. Raises LayerfsError."""

    async def main() -> T:
        async with wiring.asking(settings) as client:
            return await work(client)

    return interrupts.run(main)


@asynccontextmanager
async def swept(storage: ImageStorage) -> AsyncIterator[None]:
    """Remove during the block what dead processes left; whoever fails or is interrupted leaves it, too."""
    done = trio.Event()

    async def sweep() -> None:
        try:
            if not storage.readonly:
                await trio.to_thread.run_sync(storage.sweep_staged, abandon_on_cancel=True)
        except StoreError as exc:  # it costs room and nothing else
            log.info("leftovers could not be swept: %s", exc)
        finally:
            done.set()

    async with background() as nursery:
        nursery.start_soon(sweep)
        yield
        await done.wait()


async def pinned(machinery: Machinery, reference: ImageReference) -> Digest:
    """Return what *reference* names: by its digest, else as pinned, else as the registry says now."""
    target = reference.target
    if isinstance(target, Digest):
        return target
    refs = machinery.storage.refs
    entry = refs.read(target)
    if entry is None:
        await machinery.provider.obtain(TagNeed(target))
        entry = refs.read(target)
    if entry is None:
        raise NotInStore(f"{reference}: resolved, but removed again meanwhile; try again")
    return entry.digest


async def manifest_of(machinery: Machinery, reference: ImageReference | Tag, digest: Digest) -> Manifest:
    """Have the documents of *digest* in the store; return the manifest for this platform."""
    try:
        return await machinery.provider.image(reference.repository, digest)
    except PlatformMissing as exc:  # it goes by digests, and the user by names
        raise PlatformMissing(f"{reference}: {exc}") from exc


async def fetch_stack(
    machinery: Machinery, reference: ImageReference | Tag, image: Image, merger: Merger = ""
) -> list[str]:
    """Have all layers and the cover for *merger*; return the native lower directories, topmost first."""
    storage, layers = machinery.storage, [layer.digest for layer in image.layers]
    if merger:
        await machinery.provider.obtain(LayersNeed(reference.repository, image, tuple(range(len(layers)))))
        await trio.to_thread.run_sync(storage.publish_cover, layers, merger)
    else:
        await machinery.provider.obtain(StackNeed(reference.repository, image))
    if storage.cover(layers, merger) is None:
        raise NotInStore(f"{reference}: fetched, but removed again meanwhile; try again")
    return stack_paths(storage, image, merger)


async def fetch_image(machinery: Machinery, reference: ImageReference | Tag, image: Image) -> None:
    """Have all layers, and the cover unless the filesystem cannot hold it: the mount needs none."""
    try:
        await fetch_stack(machinery, reference, image)
    except StoreUnfit as exc:
        log.warning("%s: no lowerdirs for overlayfs: %s", reference, exc)


@asynccontextmanager
async def made_durable(storage: ImageStorage) -> AsyncIterator[None]:
    """Have on the disk, when the block has ended, what it put into the store. Raises StoreError."""
    with storage.writing_back():
        yield
    await trio.to_thread.run_sync(storage.make_durable)


def fetch_native_stack(
    settings: Settings,
    reference: ImageReference,
    use: Callable[[list[str]], object],
    *,
    fetch: bool,
    named: bool,
    merger: Merger,
) -> None:
    """Do what `layerfs.cli.native.use_native_stack` does, by fetching what is not here."""

    async def work(machinery: Machinery) -> None:
        storage = machinery.storage
        form = storage.capabilities
        if not (form.marker_names if merger else form.whiteout_devices):
            raise StoreUnfit(
                f"{storage.images_dir}: this filesystem holds no lowerdirs (expected "
                f"{'names that begin with .wh.' if merger else 'whiteouts and xattrs'}); "
                "use the lowerdir of a mount (layerfs mount), or another --store"
            )
        manifest = await manifest_of(machinery, reference, await pinned(machinery, reference))
        image = image_of(machinery.storage, manifest, machinery.platform)
        if fetch:
            async with made_durable(storage):
                with kept(storage, image, merger, named=named):
                    use(await fetch_stack(machinery, reference, image, merger))
        else:
            use(stack_paths(storage, image, merger))

    with_provider(settings if fetch else replace(settings, offline=True), work)


def fetched_image(
    settings: Settings, reference: ImageReference
) -> tuple[Image, list[tuple[ImageLayer, LayerDir]]]:
    """Do what `layerfs.cli.native.have_image` does, by fetching what is not here."""

    async def work(machinery: Machinery) -> tuple[Image, list[tuple[ImageLayer, LayerDir]]]:
        manifest = await manifest_of(machinery, reference, await pinned(machinery, reference))
        image = image_of(machinery.storage, manifest, machinery.platform)
        await machinery.provider.obtain(
            LayersNeed(reference.repository, image, tuple(range(len(image.layers))))
        )
        opened = []
        for layer in image.layers:
            found = machinery.storage.open_layer(layer.digest)
            if found is None:
                raise NotInStore(f"{reference}: fetched, but removed again meanwhile; try again")
            opened.append((layer, found))
        return image, opened

    return with_provider(settings, work)
