"""Extractors for what is small: TOCs and single files. Those of whole layers may be busy for minutes.

Moves messages between `layerfs.extract.client`, which blocks, and trio.
"""

import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import trio

from layerfs.errors import LayerfsError, SizeMismatch
from layerfs.extract.client import Extractor, ExtractorPool, Keep
from layerfs.extract.job import SkeletonJob, UnpackJob
from layerfs.layer.record import Extraction
from layerfs.store.newobjects import PieceWriter, StagedObject

_COUNT: Final = 2

log = logging.getLogger(__name__)


class Decoders:
    """A pool of their own. Build it with `open_decoders`."""

    def __init__(self, pool: ExtractorPool) -> None:
        self._pool = pool
        self._free = trio.CapacityLimiter(_COUNT)
        """Whoever waits for an extractor holds no thread: those who have one need them."""

    async def skeleton(self, job: SkeletonJob, keep: Keep) -> Extraction:
        """Have a skeleton made; *keep* gets the record's tables, in a thread. Raises what the worker says."""
        async with self._extractor() as extractor:
            extractor.start(job)
            found = await trio.to_thread.run_sync(extractor.result, keep, abandon_on_cancel=True)
            for warning in extractor.warnings:
                log.warning("%s: %s", job.digest, warning)
            return found

    async def unpack(self, job: UnpackJob, staged: StagedObject) -> None:
        """Have a file unpacked into *staged*, each piece verified.

        Raises what the worker says, SizeMismatch, DigestMismatch, StoreFull, StoreError.
        """
        async with self._extractor() as extractor:
            extractor.start(job)
            keep = _Filling(staged).write
            await trio.to_thread.run_sync(extractor.unpacked, keep, abandon_on_cancel=True)

    @asynccontextmanager
    async def _extractor(self) -> AsyncIterator[Extractor]:
        async with self._free:
            extractor = await trio.to_thread.run_sync(self._pool.acquire)
            answered = False
            try:
                yield extractor
                answered = True
            except LayerfsError:
                answered = True
                raise
            finally:
                if not answered:  # it may be in the middle of a job; the pool starts another
                    extractor.close()
                self._pool.release(extractor)


@contextmanager
def open_decoders() -> Iterator[Decoders]:
    """Own the extractors, which are started when they are needed."""
    with ExtractorPool(_COUNT) as pool:
        yield Decoders(pool)


class _Filling:
    """Takes the bytes of a file as an extractor says them: those of its pieces, one after another."""

    def __init__(self, staged: StagedObject) -> None:
        self._staged = staged
        self._pieces = deque(piece for piece in staged.content.pieces if piece.digest)
        self._lacks = 0
        self._writer: PieceWriter | None = None

    def write(self, data: bytes) -> None:
        """Write the next bytes. Raises SizeMismatch, DigestMismatch, StoreFull, StoreError."""
        rest = memoryview(data)
        while rest:
            if self._writer is None:
                if not self._pieces:
                    raise SizeMismatch(f"object {self._staged.id}: more bytes than its pieces have")
                piece = self._pieces.popleft()
                self._writer, self._lacks = self._staged.piece(piece), piece.size
            some, rest = rest[: self._lacks], rest[self._lacks :]
            self._writer.write(some)
            self._lacks -= len(some)
            if not self._lacks:
                self._writer.finish()
                self._writer = None
