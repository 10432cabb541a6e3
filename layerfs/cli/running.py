"""From a verb to the asynchronous machinery and back. Imported inside the verbs: it brings trio."""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from layerfs import app as wiring
from layerfs.api.here import kept, stack_paths
from layerfs.api.machinery import Machinery, fetch_stack, made_durable, manifest_of, pinned, swept
from layerfs.cli import interrupts
from layerfs.cli.here import image_of
from layerfs.cli.opening import open_store
from layerfs.errors import NotInStore, StoreUnfit
from layerfs.needs import LayersNeed
from layerfs.oci import Image, ImageReference
from layerfs.oci.image import ImageLayer
from layerfs.settings import Settings
from layerfs.store import LayerDir
from layerfs.store.records import Merger

if TYPE_CHECKING:
    from layerfs.extract.client import ExtractorPool
    from layerfs.local.origin import LocalOrigin
    from layerfs.registry.client import RegistryClient

T = TypeVar("T")

log = logging.getLogger(__name__)


def with_provider(
    settings: Settings,
    work: Callable[[Machinery], Awaitable[T]],
    local: "LocalOrigin | None" = None,
    *,
    pool: "ExtractorPool | None" = None,
) -> T:
    """Run *work* with the store and a provider that fetches into it. Raises LayerfsError.

    It fetches from registries, or from nothing but *local*; the extractors of *pool*, or its own, extract.
    """

    async def main() -> T:
        storage = open_store(settings, make=not settings.offline or local is not None)
        keeper = wiring.keeper_of(settings, storage)
        async with wiring.providing(settings, storage, keeper, local, pool=pool) as provider, swept(storage):
            return await work(Machinery(storage, provider, settings.platform, keeper))

    return interrupts.run(main)


def with_client(settings: Settings, work: "Callable[[RegistryClient], Awaitable[T]]") -> T:
    """Run *work* with a registry client and no store. Raises LayerfsError."""

    async def main() -> T:
        async with wiring.asking(settings) as client:
            return await work(client)

    return interrupts.run(main)


def fetch_native_stack(
    settings: Settings,
    reference: ImageReference,
    use: Callable[[list[str]], object],
    *,
    fetch: bool,
    named: bool,
    merger: Merger,
    pool: "ExtractorPool",
) -> None:
    """Do what `layerfs.cli.native.use_native_stack` does, by fetching what is not here."""

    async def work(machinery: Machinery) -> None:
        await native_stack(machinery, reference, use, fetch=fetch, named=named, merger=merger)

    with_provider(settings if fetch else msgspec.structs.replace(settings, offline=True), work, pool=pool)


async def native_stack(
    machinery: Machinery,
    reference: ImageReference,
    use: Callable[[list[str]], object],
    *,
    fetch: bool = True,
    named: bool = False,
    merger: Merger = "",
) -> None:
    """Do what `fetch_native_stack` does, with what there is for it already."""
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
    if not fetch:
        use(stack_paths(storage, image, merger))
        return
    async with made_durable(storage):
        with kept(storage, image, merger, named=named):
            use(await fetch_stack(machinery, reference, image, merger))


def fetched_image(
    settings: Settings, reference: ImageReference, *, pool: "ExtractorPool"
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

    return with_provider(settings, work, pool=pool)
