"""The extractors, lent to tasks: one job at a time each, on a blob that may still grow.

Moves messages between `layerfs.extract.client`, which blocks, and trio.
"""

import logging
from collections.abc import Callable

import trio

from layerfs.errors import LayerfsError
from layerfs.extract.client import Extractor, ExtractorPool, Keep
from layerfs.extract.job import ExtractJob
from layerfs.fetch.lending import WORTH, Claim, Lending
from layerfs.fetch.progress import Progress
from layerfs.fetch.tasks import outcome
from layerfs.layer.record import Extraction

log = logging.getLogger(__name__)


class Recalled(Exception):
    """The extractor was taken back before its answer. The tree is incomplete; the job must be given again."""


class Workers:
    """*pool*, of *count* extractors; *site* says where a registry is."""

    def __init__(self, pool: ExtractorPool, count: int, site: Callable[[str], str]) -> None:
        self._pool = pool
        self._lending = Lending(count, site)

    async def extract(self, job: ExtractJob, progress: Progress, keep: Keep) -> Extraction:
        """Have a blob extracted, which may still grow as *progress* says.

        *keep* gets the record's tables, in a thread. Raises the LayerfsError that says why it cannot be, and
        Recalled.
        """
        if not job.complete:
            await trio.to_thread.run_sync(self._pool.warm)  # a worker starts while the first bytes come
            await progress.wait_beyond(min(job.size, WORTH) - 1)
        claim = Claim(progress)
        await self._lending.take(claim)
        try:
            answer, warnings = await self._extract(job, claim, keep)
        finally:
            self._lending.give_back(claim)
        if isinstance(answer, LayerfsError):
            if claim.recalled.is_set():
                raise Recalled from answer
            raise answer
        for warning in warnings:  # of a blob that did not come whole they say nothing
            log.warning("%s: %s", job.digest, warning)
        return answer

    async def _extract(
        self, job: ExtractJob, claim: Claim, keep: Keep
    ) -> tuple[Extraction | LayerfsError, tuple[str, ...]]:
        extractor = await trio.to_thread.run_sync(self._pool.acquire)
        answered = False
        try:
            extractor.start(job)
            answer = await _answer(extractor, claim, keep)
            answered = True
            return answer, extractor.warnings
        finally:
            # No `except trio.Cancelled`: out of a nursery it may come as a group.
            if not answered:
                extractor.close()  # it may be in the middle of a file; the pool starts another
            self._pool.release(extractor)


async def _answer(extractor: Extractor, claim: Claim, keep: Keep) -> Extraction | LayerfsError:
    """Wait for the answer to the job that runs, telling the worker how far the download has come."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_follow, extractor, claim.progress)
        nursery.start_soon(_heed, extractor, claim.recalled)
        answer = await outcome(trio.to_thread.run_sync(extractor.result, keep, abandon_on_cancel=True))
        nursery.cancel_scope.cancel()
    return answer


async def _follow(extractor: Extractor, progress: Progress) -> None:
    received = 0
    while progress.ended is None:
        await progress.wait_beyond(received)
        received = progress.received
        extractor.grown(received)
    if progress.is_whole:
        progress.phase = "extracting"
        extractor.ended(progress.received)
    else:
        extractor.abort()


async def _heed(extractor: Extractor, recalled: trio.Event) -> None:
    await recalled.wait()
    extractor.abort()
