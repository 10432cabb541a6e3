"""The fetcher: meets what others need, each thing once, whoever asks.

`open_fetcher` owns the nursery in which all work runs; leaving it cancels the work, and downloads stay
staged for the next attempt.
"""

import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import Any

import trio

from layerfs.errors import (
    InvalidDocument,
    LayerfsError,
    NotInStore,
    Offline,
    RateLimited,
    RegistryMisbehaved,
    RegistryTimeout,
    StoreError,
    Unreachable,
)
from layerfs.fetch.agreement import Agreement
from layerfs.fetch.completing import Completer, When
from layerfs.fetch.documents import DocumentFetcher
from layerfs.fetch.layers import LayerWork
from layerfs.fetch.lazy import LazyWork
from layerfs.fetch.looked import LatestLooks
from layerfs.fetch.objects import first_of
from layerfs.fetch.progress import Journal
from layerfs.fetch.sharing import WaitShares
from layerfs.fetch.sums import ImageSums
from layerfs.fetch.tasks import naming
from layerfs.fetch.wants import Wants
from layerfs.flights import SingleFlight
from layerfs.layer.budgets import Budgets
from layerfs.needs import (
    BlobNeed,
    DocumentNeed,
    FileNeed,
    LayersNeed,
    Need,
    StackNeed,
    TagNeed,
    TocNeed,
    WayNeed,
)
from layerfs.oci import Digest, Image, Index, Manifest, Repository, Tag
from layerfs.oci.image import ImageLayer
from layerfs.status import Fetching
from layerfs.store import ImageStorage

log = logging.getLogger(__name__)

DURABLE_DELAY = 1.0
"""Seconds between a publication and the syncfs that makes it durable: one for many layers."""

SWEEP_PERIOD = 24 * 3600.0
"""Seconds between two looks for leftovers."""

_NO_NEWS = (Unreachable, RegistryTimeout, RateLimited, RegistryMisbehaved, Offline, InvalidDocument)
"""Errors that say nothing of a tag; a document that is none is the page of a portal, for instance."""


class Fetcher:
    """Make needed things exist in the store: a `layerfs.needs.Provider`. Build it with `open_fetcher`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        storage: ImageStorage,
        documents: DocumentFetcher,
        work: LayerWork,
        lazy: LazyWork,
        agreement: Agreement,
        journal: Journal,
        budgets: Budgets,
        waits: WaitShares,
    ) -> None:
        self.journal = journal
        self.looked_at = LatestLooks()
        self._lazy = lazy
        self._agreement = agreement
        self._completer: Completer | None = None
        self._sums = ImageSums(storage, budgets)
        self._documents = documents
        self._nursery = nursery
        self._storage = storage
        self._work = work
        self._flights: SingleFlight[Hashable, Any] = SingleFlight(nursery)
        self._wants = Wants(storage)
        self._leaders: dict[Hashable, Repository] = {}
        """For which repository the work is done that others of its registry join."""
        self._published = trio.Event()
        self._waits = waits

    @property
    def waiting(self) -> int:
        """How many callers have a need that is not met yet."""
        return len(self._waits)

    def statistics(self) -> Fetching:
        """Return what is being done and what was."""
        return self.journal.statistics(self.waiting)

    def why_whole(self, repository: Repository, layer: ImageLayer) -> str:
        """Say why a layer cannot be lazy, as far as it is known by now; empty if it can, or may."""
        return self._lazy.why_whole(repository, layer)

    async def obtain(self, need: Need) -> None:
        """Return once *need* is met. Raises the LayerfsError that says why it cannot be."""
        with self._waits.of(need.repository.registry):
            match need:
                case TagNeed(tag):
                    await self._once(need, lambda: self._pin(tag), str(tag))
                case DocumentNeed(repository, digest):
                    await self.image(repository, digest, into=isinstance(need, WayNeed))
                case LayersNeed(repository, image, numbers):
                    async with self._wants.of(image):
                        await self._layers(repository, image, [image.layers[number] for number in numbers])
                case TocNeed():
                    async with self._wants.of(need.image):
                        await self._lazily(need)
                case FileNeed():  # no lease: whoever finds the object collected asks again
                    self.journal.rung += need.is_rung
                    await first_of(need, self._lazy.names, self._lazily)
                case StackNeed():
                    async with self._wants.of(need.image):
                        await self._stack(need)
                case BlobNeed(repository, descriptor):
                    await self._among_strangers(
                        repository, descriptor.digest, lambda: self._work.blob(repository, descriptor)
                    )
                case _:
                    raise NotImplementedError(f"nothing meets {need!r}")

    async def resolve(self, tag: Tag) -> Digest:
        """Ask the registry what a tag names now, whatever is known, and pin the tag to it."""
        found: Digest = await self._once(tag, lambda: self._documents.resolve(tag), str(tag))
        return found

    async def image(self, repository: Repository, digest: Digest, *, into: bool = False) -> Manifest:
        """Have the document *digest*, and what `DocumentFetcher.image` has below it."""
        found: Manifest = await self._once(
            DocumentNeed(repository, digest),
            lambda: self._documents.image(repository, digest, into=into),
            f"{repository}@{digest}",
        )
        return found

    async def document(self, repository: Repository, digest: Digest) -> Manifest | Index:
        """Have the document *digest*, and of any manifest its config; nothing below an index."""
        what = f"{repository}@{digest}"
        found: Manifest | Index = await self._once(
            (repository, digest), lambda: self._documents.single(repository, digest), what
        )
        return found

    async def _pin(self, tag: Tag) -> None:
        """Pin a tag to what it names now.

        If the registry is unreachable, or answers with what is no manifest, the old pin is renewed: with
        ``--tag-ttl`` only one access a period waits for a dead registry.
        """
        try:
            await self._documents.resolve(tag)
        except _NO_NEWS as exc:
            known = self._storage.refs.read(tag)
            if known is None:
                raise
            log.warning("%s: keeping %s of %s: %s", tag, known.digest, known.resolved_at, exc)
            await trio.to_thread.run_sync(self._storage.refs.write, tag, known.digest)

    def sweep_soon(self) -> None:
        """Begin to sweep leftovers out of the store, now and once a day; for daemons."""
        self._nursery.start_soon(self._keep_swept)

    def complete_behind(self, when: When, in_use: Iterable[LayersNeed] = ()) -> None:
        """Begin to complete lazy layers that somebody looks at, and first those *in_use*; for daemons."""
        self._completer = Completer(self.complete, lambda: self.waiting, when)
        self._completer.in_use(in_use)
        self._documents.foreseen = self._lazy.foresight.see
        self._nursery.start_soon(self._completer.run)

    async def complete(self, need: LayersNeed) -> None:
        """Have layers whole, and of lazy ones every file that an overlay may ask for. Raises LayerfsError."""
        layers = [need.image.layers[number] for number in need.numbers]
        await self._layers(need.repository, need.image, layers)
        for layer in layers:
            await self._lazy.release(need.repository, layer)
            self._published.set()

    async def _keep_swept(self) -> None:
        while not self._storage.readonly:
            try:
                await trio.to_thread.run_sync(self._storage.sweep, abandon_on_cancel=True)
            except (StoreError, OSError) as exc:  # leftovers cost room and nothing else
                log.warning("leftovers could not be swept: %s", exc)
            await trio.sleep(SWEEP_PERIOD)

    async def keep_durable(self) -> None:
        """Turn pending records into durable ones, soon after they were written. Runs until cancelled."""
        while True:
            await self._published.wait()
            self._published = trio.Event()
            await trio.sleep(DURABLE_DELAY)
            try:
                await trio.to_thread.run_sync(self._storage.make_durable)
            except (StoreError, OSError) as exc:  # what may be lost is not called durable
                log.warning("layers of this boot could not be made durable: %s", exc)

    async def _once(self, key: Hashable, job: Callable[[], Awaitable[Any]], what: str) -> Any:
        async def run() -> Any:
            try:
                return await job()
            except LayerfsError as exc:
                self.journal.failed(what, exc)
                raise

        return await self._flights.do(key, run)

    async def _among_strangers(
        self, repository: Repository, key: Hashable, job: Callable[[], Awaitable[None]]
    ) -> None:
        """Join whoever does *job* for an image of the same registry; on failure do it oneself.

        Nobody is told the error of another registry, or that another repository lacks what this one has.
        """
        shared = (repository.registry, key)
        leader = self._leaders.setdefault(shared, repository)

        async def lead() -> None:
            try:
                await job()
            finally:
                del self._leaders[shared]

        try:
            await self._flights.do(shared, lead)
        except LayerfsError:
            if leader == repository:
                raise
            await self._flights.do((repository, key), job)

    async def _layers(self, repository: Repository, image: Image, layers: Sequence[ImageLayer]) -> None:
        """Have all *layers* of *image*, in parallel. Raises the first error, once all have ended."""
        errors: list[LayerfsError] = []
        so_far = await self._sums.of(image)

        async def have(layer: ImageLayer) -> None:
            try:
                # The claimed diff_id is part of the key: an image that lies must not fail an honest one.
                key = (layer.digest, layer.diff_id)
                with naming(repository, image, layer):
                    await self._among_strangers(repository, key, lambda: self._work.layer(repository, layer))
                    await self._agreement.settle(layer)
                await self._sums.arrived(layer.digest)
                so_far.require()
            except LayerfsError as exc:
                errors.append(exc)

        async with trio.open_nursery() as nursery:
            for layer in {(layer.digest, layer.diff_id): layer for layer in layers}.values():
                nursery.start_soon(have, layer)
        self._published.set()
        if errors:
            raise errors[0]

    async def _lazily(self, need: TocNeed | FileNeed) -> None:
        """Have what *need* says, or the layers whole that cannot be lazy."""
        self.looked_at.note(need)
        whole = await self._lazy.obtain(need)
        self._published.set()
        if self._completer is not None:
            self._completer.looked_at(need, at_once=self._lazy.is_read_through(need))
        if whole:
            async with self._wants.of(need.image):
                await self._layers(need.repository, need.image, whole)

    async def _stack(self, need: StackNeed) -> None:
        """Have all layers and their cover; again if a layer was removed before the cover was made."""
        for last in (False, False, True):
            await self._layers(need.repository, need.image, need.image.layers)
            try:
                await self._flights.do(need.image.stack, lambda: self._cover(need))
            except NotInStore:
                if last:
                    raise
            else:
                return

    async def _cover(self, need: StackNeed) -> None:
        layers = [layer.digest for layer in need.image.layers]
        if await trio.to_thread.run_sync(self._storage.cover, layers) is None:
            await trio.to_thread.run_sync(self._storage.publish_cover, layers)
