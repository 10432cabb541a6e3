"""What fetches into a store, and what is asked of it: references, documents, stacks. Brings trio."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio

from layerfs.api.here import stack_paths
from layerfs.catalog.documents import held_document
from layerfs.containers import cut_off
from layerfs.errors import NotInStore, PlatformMissing, StoreError, StoreUnfit
from layerfs.fetch.fetcher import Fetcher
from layerfs.fetch.tasks import background
from layerfs.gc.keeper import Keeper
from layerfs.needs import LayersNeed, StackNeed, TagNeed
from layerfs.oci import Digest, Image, ImageReference, Manifest, Platform, Tag, descend
from layerfs.store import ImageStorage
from layerfs.store.records import Merger

log = logging.getLogger(__name__)


class Machinery(msgspec.Struct, frozen=True):
    """What a verb works with: the store, and who fetches into it."""

    storage: ImageStorage
    provider: Fetcher
    platform: Platform | None
    """What the user wants; None: what this machine runs, or what there is."""
    keeper: Keeper
    """Who knows whether there is room."""


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


async def heal(machinery: Machinery) -> int:
    """Have here what lazy overlays wait for whose mount has gone; return how many layers that were.

    Whatever other mounts of the store there are. Raises LayerfsError, OSError.
    """
    storage = machinery.storage
    wanted = machinery.platform or Platform.of_this_machine()
    needs = await trio.to_thread.run_sync(cut_off, storage, wanted)
    if not needs:
        return 0
    async with made_durable(storage):
        for need in needs:
            await machinery.provider.complete(need)
    return len(needs)


@asynccontextmanager
async def made_durable(storage: ImageStorage) -> AsyncIterator[None]:
    """Have on the disk, when the block has ended, what it put into the store. Raises StoreError."""
    with storage.writing_back():
        yield
    await trio.to_thread.run_sync(storage.make_durable)


async def manifest_for(
    machinery: Machinery, reference: ImageReference, digest: Digest, platform: Platform | None
) -> Manifest:
    """Do as `manifest_of` for another *platform* than that of the settings; None for theirs."""
    if platform is None:
        return await manifest_of(machinery, reference, digest)
    provider, repository = machinery.provider, reference.repository
    document = await provider.document(repository, digest)
    while True:  # `descend` bounds it
        found = descend(document, platform, partial(held_document, machinery.storage))
        last = await provider.document(repository, found.digest)  # and its config
        if isinstance(last, Manifest):
            return last
