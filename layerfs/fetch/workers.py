"""The extractors, lent to tasks: one job at a time each, on a blob that may still grow.

Moves messages between `layerfs.extract.client`, which blocks, and trio. Called by `layers`.
"""

import logging
import os
from collections.abc import Callable
from typing import Final, TypeVar

import trio

from layerfs.errors import LayerfsError
from layerfs.extract.client import Extractor, ExtractorPool
from layerfs.extract.job import ExtractJob, Hashed, HashJob
from layerfs.fetch.progress import Phase, Progress
from layerfs.fetch.tasks import attempt
from layerfs.layer.record import Extraction

log = logging.getLogger(__name__)

T = TypeVar("T")

HASHED_ALONG: Final = 3
"""Cores from which a blob is hashed while it comes. Two are busy with the download and with callers of the
daemon, who would wait for a core; so there it is hashed once it is whole."""


class Workers:
    """*pool*, of *count* extractors, on *cores* (those that this process may use, if not given)."""

    def __init__(self, pool: ExtractorPool, count: int, *, cores: int | None = None) -> None:
        self._pool = pool
        self._free = trio.CapacityLimiter(count)
        self._hashes_along = (cores or len(os.sched_getaffinity(0))) >= HASHED_ALONG

    async def extract(self, job: ExtractJob, progress: Progress) -> Extraction:
        """Have a blob extracted. Raises the LayerfsError that says why it cannot be."""

        def start(extractor: Extractor) -> None:
            extractor.start(job)

        def finish(extractor: Extractor) -> Extraction:
            extraction = extractor.result()
            for warning in extractor.warnings:
                log.warning("%s: %s", job.digest, warning)
            return extraction

        return await self._lend(start, finish, progress, "extracting")

    async def hash(self, job: HashJob, progress: Progress) -> Hashed:
        """Have a blob hashed. Raises DigestMismatch, SizeMismatch, StoreError, WorkerDied."""
        if not self._hashes_along:
            await progress.beyond(job.size)

        def start(extractor: Extractor) -> None:
            extractor.start_hashing(job)

        return await self._lend(start, Extractor.hashed, progress, "verifying")

    async def _lend(
        self,
        start: Callable[[Extractor], None],
        finish: Callable[[Extractor], T],
        progress: Progress,
        phase: Phase,
    ) -> T:
        async with self._free:
            extractor = await trio.to_thread.run_sync(self._pool.acquire)
            try:
                start(extractor)
                return await _drive(extractor, finish, progress, phase)
            except trio.Cancelled:
                extractor.close()  # it may be in the middle of a file; the pool starts another
                raise
            finally:
                self._pool.release(extractor)


async def _drive(
    extractor: Extractor, finish: Callable[[Extractor], T], progress: Progress, phase: Phase
) -> T:
    """Wait for the answer to the job that runs, telling the worker how far the download has come."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_follow, extractor, progress, phase)
        answer = await attempt(trio.to_thread.run_sync(finish, extractor, abandon_on_cancel=True))
        nursery.cancel_scope.cancel()
    if isinstance(answer, LayerfsError):
        raise answer
    return answer


async def _follow(extractor: Extractor, progress: Progress, phase: Phase) -> None:
    received = 0
    while progress.ended is None:
        await progress.beyond(received)
        received = progress.received
        extractor.grown(received)
    if progress.ended == "complete":
        progress.phase = phase
        extractor.ended(progress.received)
    else:
        extractor.abort()
