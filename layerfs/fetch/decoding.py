"""Extractors for what is small: TOCs and single files. Those of whole layers may be busy for minutes.

Moves messages between `layerfs.extract.client`, which blocks, and trio.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Final, TypeVar

import trio

from layerfs.errors import LayerfsError, SizeMismatch
from layerfs.extract.client import Extractor, ExtractorPool
from layerfs.extract.job import UnpackJob
from layerfs.fetch.tasks import outcome
from layerfs.layer.toc import Content, Piece
from layerfs.store.newobjects import PieceWriter, StagedObject

T = TypeVar("T")

_COUNT: Final = 2
_PATIENCE: Final = 0.1
"""Seconds that a busy extractor is waited for before another starts, which takes 0.1 of processor: a TOC of
some thousand files takes no longer."""


class Decoders:
    """A pool of their own. Build it with `open_decoders`."""

    def __init__(self, pool: ExtractorPool) -> None:
        self._pool = pool
        self._free = trio.CapacityLimiter(_COUNT)
        """Whoever waits for an extractor holds no thread: those who have one need them."""
        self._busy = self._most = 0
        """Extractors that start or have a job; how many had one at once, and may still be there."""
        self._came = trio.Event()
        """Set when an extractor has become free."""

    async def warm(self) -> None:
        """Have an extractor start, for whoever is about to need one."""
        self._busy += 1
        try:
            await trio.to_thread.run_sync(self._pool.warm)
        finally:
            self._note_free()

    async def run(self, work: Callable[[Extractor], T]) -> T:
        """Return what *work* returns, which runs in a thread with an extractor, and has it answer its jobs.

        Whoever is cancelled has the extractor end, and waits for *work* to see it. Raises what *work* does.
        """
        lent = _Lent(self._pool)
        async with self._turn(), trio.open_nursery() as nursery:
            nursery.start_soon(_end_if_cancelled, nursery.cancel_scope, lent)
            answer = await outcome(trio.to_thread.run_sync(lent.do, work))
            await trio.lowlevel.checkpoint_if_cancelled()
            nursery.cancel_scope.cancel()
        if isinstance(answer, LayerfsError):
            raise answer
        return answer

    async def unpack(self, job: UnpackJob, stage: Callable[[Content], StagedObject]) -> None:
        """Have files unpacked and published, one after another, each piece verified; *stage* begins one.

        Raises what the worker says, SizeMismatch, DigestMismatch, StoreFull, StoreError.
        """

        def work(extractor: Extractor) -> None:
            with closing(_Filling(job.contents, stage)) as filling:
                extractor.start(job)
                extractor.unpacked(filling.write)
                filling.finish()

        await self.run(work)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Be one of those for whom there is an extractor."""
        async with self._free:
            if self._busy >= max(1, self._most):
                with trio.move_on_after(_PATIENCE):
                    await self._came.wait()
            self._busy += 1
            self._most = max(self._most, self._busy)
            try:
                yield
            finally:
                self._note_free()

    def _note_free(self) -> None:
        self._busy -= 1
        self._came.set()
        self._came = trio.Event()


@contextmanager
def open_decoders(on_death: Callable[[], None] = lambda: None) -> Iterator[Decoders]:
    """Own the extractors, which are started when they are needed."""
    with ExtractorPool(_COUNT) as pool:
        pool.on_death = on_death
        yield Decoders(pool)


class _Lent:
    """An extractor for one piece of work, taken and given back by the thread that works: one turn for all."""

    def __init__(self, pool: ExtractorPool) -> None:
        self._pool = pool
        self._extractor: Extractor | None = None
        self._unwanted = False

    def do(self, work: Callable[[Extractor], T]) -> T:
        """Return what *work* returns. Raises what it raises, as WorkerDied once nobody wants it."""
        with self._pool.extractor() as extractor:
            self._extractor = extractor
            if self._unwanted:  # said before there was one to end
                extractor.close()
            return work(extractor)

    def end(self) -> None:
        """Have the work end: nobody wants it."""
        self._unwanted = True
        if self._extractor is not None:
            self._extractor.close()


async def _end_if_cancelled(own: trio.CancelScope, lent: _Lent) -> None:
    try:
        await trio.sleep_forever()
    finally:
        if not own.cancel_called:
            lent.end()


class _Filling:
    """Takes the bytes of files as an extractor says them: those of their pieces, one after another."""

    def __init__(self, contents: Sequence[Content], stage: Callable[[Content], StagedObject]) -> None:
        self._contents = deque(contents)
        self._stage = stage
        self._staged: StagedObject | None = None
        self._pieces: deque[Piece] = deque()
        self._lacks = 0
        self._writer: PieceWriter | None = None

    def write(self, data: bytes) -> None:
        """Write the next bytes. Raises SizeMismatch, DigestMismatch, StoreFull, StoreError."""
        rest = memoryview(data)
        while rest:
            if self._writer is None:
                self._begin_piece()
            assert self._writer is not None
            some, rest = rest[: self._lacks], rest[self._lacks :]
            self._writer.write(some)
            self._lacks -= len(some)
            if not self._lacks:
                self._writer.finish()
                self._writer = None
                if not self._pieces:
                    self._publish()

    def finish(self) -> None:
        """Publish what has no bytes and is left. Raises SizeMismatch, StoreFull, StoreError."""
        if self._staged is not None:
            raise SizeMismatch(f"object {self._staged.id}: ended before all bytes of its pieces")
        while self._contents:
            self._begin()
            self._publish()

    def close(self) -> None:
        """Remove what is not published."""
        if self._staged is not None:
            self._staged.close()
            self._staged = None

    def _begin_piece(self) -> None:
        while not self._pieces:
            if not self._contents:
                raise SizeMismatch("more bytes came than the pieces of these files have")
            self._begin()
            if not self._pieces:  # a hole and nothing else
                self._publish()
        assert self._staged is not None
        piece = self._pieces.popleft()
        self._writer, self._lacks = self._staged.piece(piece), piece.size

    def _begin(self) -> None:
        content = self._contents.popleft()
        self._staged = self._stage(content)
        self._pieces.extend(piece for piece in content.pieces if piece.digest)

    def _publish(self) -> None:
        assert self._staged is not None
        self._staged.commit()
        self.close()
