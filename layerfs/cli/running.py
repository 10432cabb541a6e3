"""From a verb to the asynchronous machinery and back. Imported inside the verbs: it brings trio."""

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import msgspec
import trio
import typer

from layerfs import app as wiring
from layerfs.cli import interrupts
from layerfs.cli.opening import open_store
from layerfs.errors import NotInStore, PlatformMissing, StoreError, StoreFull, StoreUnfit
from layerfs.fetch import Fetcher
from layerfs.fetch.tasks import background
from layerfs.gc.keeper import Keeper
from layerfs.local.origin import LocalOrigin
from layerfs.needs import LayersNeed, StackNeed, TagNeed
from layerfs.oci import Digest, Image, ImageReference, Manifest, Platform, Tag, stack_digest
from layerfs.oci.config import UNKNOWN
from layerfs.oci.image import ImageLayer
from layerfs.settings import Settings
from layerfs.store import ImageStorage, LayerDir
from layerfs.store.records import Merger

if TYPE_CHECKING:
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
    settings: Settings, work: Callable[[Machinery], Awaitable[T]], local: LocalOrigin | None = None
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
    return await machinery.provider.image(reference.repository, digest)


def image_of(machinery: Machinery, manifest: Manifest) -> Image:
    """Pair a manifest with its config, both in the store; warn of an image for another machine.

    Raises UnsupportedImage for an artifact, PlatformMissing for an image of another platform than was said.
    """
    manifest.require_image()
    image = Image.of(manifest, machinery.storage.load_config(manifest.config.digest))
    found = image.config.platform
    wanted = machinery.platform or Platform.of_this_machine()
    if found.os != UNKNOWN and found not in wanted.candidates():
        if machinery.platform is not None:
            raise PlatformMissing(
                f"{manifest.digest}: no image for {wanted} (it has: {found}); try another --platform, or none"
            )
        typer.echo(f"layerfs: {manifest.digest}: an image for {found} alone (this is {wanted})", err=True)
    return image


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


def stack_paths(storage: ImageStorage, image: Image, merger: Merger = "") -> list[str]:
    """Return the native lower directories of an image, topmost first, whether they are there or not."""
    cover = storage.cover_path([layer.digest for layer in image.layers], merger)
    return [str(cover), *(str(storage.layer_extracted_path(digest)) for digest in image.lower_order())]


@asynccontextmanager
async def made_durable(storage: ImageStorage) -> AsyncIterator[None]:
    """Have on the disk, when the block has ended, what it put into the store. Raises StoreError."""
    with storage.writing_back():
        yield
    await trio.to_thread.run_sync(storage.make_durable)


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


def use_native_stack(
    settings: Settings,
    reference: ImageReference,
    use: Callable[[list[str]], object],
    *,
    fetch: bool = True,
    named: bool = False,
    merger: Merger = "",
) -> None:
    """Call *use* with the native lower directories of an image, topmost first, and make them durable after.

    They are those for *merger*. Nobody removes them meanwhile; if *named*, not for some time after. Unless
    *fetch* they need not be there. Raises StoreUnfit where the kernel cannot use the layers of this store,
    NotInStore without *fetch* if the manifest is not here, LayerfsError.
    """

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
        image = image_of(machinery, manifest)
        if fetch:
            async with made_durable(storage):
                with kept(storage, image, merger, named=named):
                    use(await fetch_stack(machinery, reference, image, merger))
        else:
            use(stack_paths(storage, image, merger))

    with_provider(settings if fetch else replace(settings, offline=True), work)


def have_layers(settings: Settings, reference: ImageReference) -> list[LayerDir]:
    """Fetch the layers of an image where they are not here; return them, base first. Raises LayerfsError."""
    return [layer for _, layer in have_image(settings, reference)[1]]


def have_image(
    settings: Settings, reference: ImageReference
) -> tuple[Image, list[tuple[ImageLayer, LayerDir]]]:
    """Fetch an image where it is not here; return it with its layer directories. Raises LayerfsError."""

    async def work(machinery: Machinery) -> tuple[Image, list[tuple[ImageLayer, LayerDir]]]:
        manifest = await manifest_of(machinery, reference, await pinned(machinery, reference))
        image = image_of(machinery, manifest)
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
