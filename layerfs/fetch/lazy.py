"""Lazy layers: a skeleton out of a TOC, an object out of the bytes that hold one file.

What is asked of a registry are ranges (`layerfs.fetch.parts`); what decodes them is an extractor, which has
neither network nor logins. Why a layer cannot be lazy is remembered as long as the process lives, and said by
`LazyWork.why_whole`: then it is fetched whole, as any other.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec
import trio

from layerfs.errors import Denied, ImageError, InvalidDocument, LayerfsError, NoRanges
from layerfs.extract.client import Extractor, Keep
from layerfs.extract.job import SkeletonJob
from layerfs.fetch.agreement import Agreement
from layerfs.fetch.decoding import Decoders
from layerfs.fetch.foresight import Foresight
from layerfs.fetch.laziness import Laziness
from layerfs.fetch.objects import ObjectWork
from layerfs.fetch.parts import BlobParts, Found
from layerfs.fetch.progress import Journal
from layerfs.fetch.room import MakeRoom, no_room, with_room, with_what_is_here
from layerfs.fetch.tasks import all_of, make_once
from layerfs.fetch.tocbytes import TocBytes
from layerfs.flights import SingleFlight
from layerfs.layer.budgets import Budgets
from layerfs.layer.record import Extraction
from layerfs.needs import FileNeed, TocNeed
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.oci.image import ImageLayer
from layerfs.oci.toc import TocPlace, toc_place
from layerfs.store import ImageStorage
from layerfs.store.tocs import BlobPlace, StagedToc, StoredToc

_RANGELESS_SECONDS: Final = 600.0

log = logging.getLogger(__name__)


class _NotLazy(LayerfsError):
    """A layer has to be fetched whole; the text says why."""


class LazyWork:
    """Make skeletons and objects exist in the store, each once, whoever asks."""

    def __init__(
        self,
        nursery: trio.Nursery,
        storage: ImageStorage,
        parts: BlobParts,
        decoders: Decoders,
        journal: Journal,
        budgets: Budgets,
        laziness: Laziness,
        agreement: Agreement,
        make_room: MakeRoom = no_room,
    ) -> None:
        self._toc_bytes = TocBytes(nursery, parts)
        self.foresight = Foresight(nursery, laziness, decoders, self.begin)
        self._parts = parts
        self._objects = ObjectWork(storage, parts, decoders, make_room)
        self._make_room = make_room
        self._flights: SingleFlight[tuple[str, object], bool] = SingleFlight(nursery)
        self._journal = journal
        self._storage = storage
        self._decoders = decoders
        self._budgets = budgets
        self._laziness = laziness
        self._agreement = agreement
        self._refused: dict[tuple[Digest, Digest], str] = {}
        """By TOC and blob: what is wrong with it."""
        self._rangeless: dict[str, float] = {}
        """Registries that sent whole blobs only, and when that was: it may have been a bad moment."""

    def place(self, repository: Repository, layer: Descriptor) -> TocPlace:
        """Return where the TOC of *layer* is.

        Raises _NotLazy where it has none, or none that may be used; InvalidToc if it tells of another layer.
        """
        if not self._laziness.allows(repository):
            raise _NotLazy("switched off")
        try:
            place = toc_place(layer)
        except InvalidDocument as exc:
            raise _NotLazy(str(exc)) from exc
        if place is None:
            raise _NotLazy("no TOC")
        self._agreement.require(place.digest, layer.digest)
        lazy = self._storage.lazy
        problem = self._refused.get((place.digest, layer.digest)) or lazy.problem()
        if problem:
            raise _NotLazy(problem)
        if self._is_rangeless(repository) and not lazy.open_skeleton_of(place.digest, layer.digest):
            raise _NotLazy(f"{repository.registry} answers no ranges")
        return place

    async def begin(self, repository: Repository, blob: Descriptor) -> None:
        """Ask for what lists the files of a layer that is about to be looked into, if that is not here.

        What fails, fails again for who needs it.
        """

        def wanted() -> TocPlace | None:
            place, storage = self.place(repository, blob), self._storage
            is_here = storage.lazy.open_skeleton(place.digest) or storage.open_layer(blob.digest)
            return None if is_here or storage.readonly else place

        with suppress(LayerfsError):
            place = await trio.to_thread.run_sync(wanted)
            if place is not None:
                await self._toc_bytes.begin(repository, blob, place)

    def why_whole(self, repository: Repository, layer: ImageLayer) -> str:
        """Say why *layer* cannot be lazy, as far as it is known by now; empty if it can, or may."""
        try:
            self.place(repository, layer.descriptor)
        except (_NotLazy, ImageError) as exc:
            return str(exc)
        return ""

    def _is_rangeless(self, repository: Repository) -> bool:
        since = self._rangeless.get(repository.registry)
        return since is not None and time.monotonic() - since < _RANGELESS_SECONDS

    async def obtain(self, need: TocNeed | FileNeed) -> list[ImageLayer]:
        """Meet *need*, as far as layers can be lazy; return those that have to be had whole.

        Raises LayerfsError.
        """
        repository, layers = need.repository, need.image.layers
        if isinstance(need, FileNeed):
            layer = layers[need.number]
            key = repository.registry, need.id
            here = await self._once(key, layer, lambda: self._object(repository, layer, need.toc, need.id))
            return [] if here else [layer]
        whole: list[ImageLayer] = []
        wanted = {layers[number].digest: layers[number] for number in need.numbers}

        async def have(layer: ImageLayer) -> None:
            key = repository.registry, layer.key
            if not await self._once(key, layer, lambda: self._skeleton(repository, layer)):
                whole.append(layer)

        await all_of(*(partial(have, layer) for layer in wanted.values()))
        return whole

    async def names(self, need: FileNeed) -> bool:
        """Say whether the TOC of *need* names its object."""
        indexes = self._storage.lazy.indexes
        if not need.is_sure:
            await trio.to_thread.run_sync(indexes.load, need.toc)
        return need.is_sure or bool(indexes.names(need.toc, need.id))

    def is_read_through(self, need: TocNeed | FileNeed) -> bool:
        """Say whether the layer of *need* is being read file after file."""
        if isinstance(need, TocNeed):
            return False
        return self._parts.is_all_wanted(need.image.layers[need.number].digest, need.repository.registry)

    async def _once(
        self, key: tuple[str, object], layer: ImageLayer, job: Callable[[], Awaitable[None]]
    ) -> bool:
        """Do *job*, or wait for whoever does it; False if the layer has to be had whole."""
        registry, _ = key

        async def run() -> bool:
            try:
                await job()
            except NoRanges as exc:
                self._rangeless[registry] = time.monotonic()
                log.debug("%s: fetched whole: %s", layer.digest, exc)
                return False
            except (_NotLazy, Denied) as exc:  # who refuses ranges alone may send the whole, and says so else
                log.debug("%s: fetched whole: %s", layer.digest, exc)
                return False
            except LayerfsError as exc:
                self._journal.failed(str(layer.digest), exc)
                raise
            return True

        return await self._flights.do(key, run)

    async def _skeleton(self, repository: Repository, layer: ImageLayer) -> None:
        """Have the skeleton of *layer*.

        Raises _NotLazy, NoRanges, Denied; LayerfsError where a whole layer would fail, too.
        """
        blob = layer.descriptor
        place = await trio.to_thread.run_sync(self.place, repository, blob)

        async def has() -> bool:
            found = self._storage.lazy.open_skeleton_of
            return await trio.to_thread.run_sync(found, place.digest, layer.digest) is not None

        async def make() -> None:
            with self._journal.making("toc", layer.digest, _NotLazy, ImageError):
                made = partial(self._make_skeleton, repository, blob, place)
                await self._parts.of_the_right(repository, blob, made)

        try:
            room = partial(with_room, self._storage, self._make_room, partial(with_what_is_here, make))
            await make_once(self._storage, repository.registry, place.digest, has, room)
        except ImageError as exc:  # the layer may be sound all the same
            self._refused[place.digest, layer.digest] = str(exc)
            log.warning("%s: its TOC is refused, it is fetched whole: %s", layer.digest, exc)
            raise _NotLazy(str(exc)) from exc

    async def _make_skeleton(self, repository: Repository, blob: Descriptor, place: TocPlace) -> None:
        lazy = self._storage.lazy
        stored = await trio.to_thread.run_sync(lazy.tocs.find, place.digest)
        if stored is not None:
            known = await trio.to_thread.run_sync(stored.place)
            if known is None or known.blob != str(blob.digest):
                raise _NotLazy("its TOC is that of another layer of this store")
            await self._made_of(stored, known)
            return
        toc = await trio.to_thread.run_sync(lazy.stage_toc, place.digest)

        async def fetch() -> None:
            nonlocal place
            place = await self._toc_bytes.fetch(repository, blob, place, toc)

        try:
            await all_of(fetch, self._decoders.warm)
            await self._made_of(toc, BlobPlace(place, str(blob.digest), blob.size))
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(toc.close)

    async def _made_of(self, toc: StagedToc | StoredToc, place: BlobPlace) -> None:
        lazy, budgets = self._storage.lazy, self._budgets

        def work(extractor: Extractor) -> None:
            def run(job: SkeletonJob, keep: Keep) -> Extraction:
                extractor.start(msgspec.structs.replace(job, budgets=budgets))
                extraction = extractor.result(keep)
                for warning in extractor.warnings:
                    log.warning("%s: %s", job.digest, warning)
                return extraction

            lazy.make_skeleton(toc, place, run)

        await self._decoders.run(work)

    async def _object(self, repository: Repository, layer: ImageLayer, toc: Digest, id_: str) -> None:
        """Have what a file of a lazy layer holds.

        Raises InvalidToc if *layer* is known not to be what *toc* says, LayerfsError as `ObjectWork.make`.
        """
        lazy = self._storage.lazy

        async def has() -> bool:
            return lazy.objects.find(id_) is not None  # one lstat(2), less than a thread's turn

        found: Found | None = None

        async def make() -> None:
            nonlocal found
            self._agreement.require(toc, layer.digest)
            with self._journal.making("partly", layer.digest):
                found = await self._objects.make(repository, layer.descriptor, toc, id_)

        await make_once(self._storage, repository.registry, Digest.of(id_.encode()), has, make)
        if found is not None:
            await self._objects.advance(layer.descriptor, toc, found)

    async def release(self, repository: Repository, layer: ImageLayer) -> None:
        """Have all files of a whole layer as objects, if a mount uses its skeleton: it waits for them alone.

        Raises LayerfsError.
        """
        lazy, toc = self._storage.lazy, layer.key.toc
        if toc is None or not (await trio.to_thread.run_sync(self._storage.usage)).uses(toc):
            return
        for id_ in await trio.to_thread.run_sync(self._objects.lacking, toc):
            if lazy.objects.find(id_) is None:
                await self._once(
                    (repository.registry, id_), layer, partial(self._object, repository, layer, toc, id_)
                )
