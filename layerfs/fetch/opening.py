"""From an origin and a store to a `Fetcher`: the wiring of this package."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from layerfs.extract.client import ExtractorPool
from layerfs.fetch.agreement import Agreement
from layerfs.fetch.backoff import Backoff
from layerfs.fetch.decoding import open_decoders
from layerfs.fetch.documents import DocumentFetcher
from layerfs.fetch.download import download
from layerfs.fetch.fetcher import Fetcher
from layerfs.fetch.layers import BlobFiles, LayerWork
from layerfs.fetch.laziness import LAZY, Laziness
from layerfs.fetch.lazy import LazyWork
from layerfs.fetch.origin import Origin
from layerfs.fetch.parts import BlobParts
from layerfs.fetch.progress import Journal
from layerfs.fetch.room import MakeRoom, no_room
from layerfs.fetch.sharing import LocatingOrigin, WaitShares
from layerfs.fetch.streams import ONE, Streams
from layerfs.fetch.tasks import background
from layerfs.fetch.workers import Workers
from layerfs.layer.budgets import Budgets
from layerfs.needs import WAITERS
from layerfs.oci import Platform
from layerfs.store import ImageStorage


@asynccontextmanager
async def open_fetcher(
    storage: ImageStorage,
    origin: Origin,
    pool: ExtractorPool,
    *,
    platform: Platform,
    budgets: Budgets,
    workers: int,
    blob_files: BlobFiles | None = None,
    make_room: MakeRoom = no_room,
    new_backoff: Callable[[], Backoff] = Backoff,
    laziness: Laziness = LAZY,
    streams: Streams = ONE,
    journal: Journal | None = None,
) -> AsyncIterator[Fetcher]:
    """Own the tasks that fetch; on leaving, cancel them. A LayerfsError of the block leaves as itself."""
    journal = Journal() if journal is None else journal
    located = LocatingOrigin(origin)
    parts = BlobParts(storage, located, new_backoff)
    fill = partial(download, located, parts=parts, new_backoff=new_backoff, streams=streams)
    lent = Workers(pool, workers, located.of)
    with open_decoders(partial(journal.died, "extractor")) as small:
        async with background() as nursery:
            agreement = Agreement(nursery, storage)
            lazy = LazyWork(nursery, storage, parts, small, journal, budgets, laziness, agreement, make_room)
            fetcher = Fetcher(
                nursery,
                storage,
                DocumentFetcher(storage, located, platform),
                LayerWork(storage, located, fill, lent, budgets, journal, parts, blob_files, make_room),
                lazy,
                agreement,
                journal,
                budgets,
                WaitShares(WAITERS, located.of),
            )
            nursery.start_soon(fetcher.keep_durable)
            yield fetcher
