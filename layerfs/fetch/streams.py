"""One large blob by several requests at a time, where one does not fill the line. Judges no bytes.

A connection over a distance is slow for reasons of its own: what is in flight, and what a server grants to
one connection. So a blob begins as one request, for its first bytes alone. If those came as a range, and
slowly, a few requests fill the same file in pieces; one of them always works for the front and waits for its
turn at the registry, the others only use places that nobody else wants. Any sign of harm ends them: then one
request goes on, as it does with a registry that knows no ranges.
"""

import logging
from functools import partial
from typing import Final

import msgspec
import trio

from layerfs.errors import LayerfsError, RegistryError, RegistryMisbehaved
from layerfs.fetch.operations import Receive, ReceivePiece
from layerfs.fetch.origin import Listener, Origin
from layerfs.fetch.tasks import outcome
from layerfs.fetch.window import Window
from layerfs.oci import Descriptor, Repository
from layerfs.store import StagedDownload

log = logging.getLogger(__name__)

_PROGRESS: Final = 64 << 10
"""Bytes that an answer brings, or it is none (as for `layerfs.fetch.backoff`)."""
_AHEAD: Final = 2
"""Pieces for each request that may be here ahead of the front, or on their way."""


class Rate:
    """How fast bytes came, from the first on: what a registry needs until then says nothing of the line."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None

    def hearing(self, arrived: Listener) -> Listener:
        """Return a listener that passes on what it hears."""

        def told(received: int) -> None:
            self._last = trio.current_time(), received
            self._first = self._first or self._last
            arrived(received)

        return told

    def is_above(self, bytes_a_second: float) -> bool:
        """Say whether more came than that; not if all came at once."""
        if self._first is None or self._last is None or self._first[1] == self._last[1]:
            return False
        return self._last[1] - self._first[1] > bytes_a_second * (self._last[0] - self._first[0])


class Streams(msgspec.Struct, frozen=True):
    """When several requests are made for one blob, and how many. Sizes are in bytes."""

    most: int = 4
    least: int = 64 << 20
    """What must be missing."""
    piece: int = 16 << 20
    """What one request asks for. It takes long enough for the way to a registry to be a small part of it; as
    often as it ends, a place at the registry is free for others."""
    probe: int = 4 << 20
    """What the first request asks for."""
    enough: float = 256e6
    """Bytes a second that one request may bring: a downloader takes in no more by several."""

    def are_worth(self, missing: int) -> bool:
        """Say whether several requests are, where so much is missing."""
        return self.most > 1 and missing > self.least

    def probed(self, start: int) -> int:
        """Return where the first request ends that begins at *start*."""
        return start + self.probe

    def is_enough(self, rate: Rate) -> bool:
        """Say whether one request does as well."""
        return rate.is_above(self.enough)


ONE: Final = Streams(most=1)


def gap_end(staged: StagedDownload, end: int) -> int:
    """Return where a single request ends that goes on at the front of *staged*, at *end* at most.

    While something is here ahead of that, it goes piece by piece.
    """
    pieces = staged.pieces
    return end if pieces is None else min(end, pieces.end(staged.offset // pieces.piece))


async def fill(
    origin: Origin,
    staged: StagedDownload,
    repository: Repository,
    descriptor: Descriptor,
    arrived: Listener,
    streams: Streams,
) -> None:
    """Have a blob in *staged* by several requests, as far as that goes well; *arrived* hears of its front.

    Raises what the request for the front raises, and StoreFull, StoreError, SizeMismatch, WorkerDied. What
    only stands against several requests is logged.
    """
    pieces = await trio.to_thread.run_sync(staged.scatter, streams.piece)
    window = Window(pieces, staged.offset, streams.most * _AHEAD)
    log.debug("%s: up to %d requests at a time", descriptor.digest, streams.most)
    filling = _Filling(origin, staged, repository, descriptor, arrived, window)
    await filling.run(streams.most - 1)


class _Filling:
    """The requests for one blob, in the tasks of one nursery."""

    def __init__(
        self,
        origin: Origin,
        staged: StagedDownload,
        repository: Repository,
        descriptor: Descriptor,
        arrived: Listener,
        window: Window,
    ) -> None:
        self._origin = origin
        self._staged = staged
        self._repository = repository
        self._descriptor = descriptor
        self._arrived = arrived
        self._name = str(staged.staged_path)
        self._window = window
        self._front = window.front
        self._noting = trio.Lock()
        self._failed: LayerfsError | None = None
        self._ended = False
        """Whether several requests are no good any more."""
        self._given_back = trio.Event()
        self._done = trio.Event()
        """Set, and replaced, when a piece is whole: then more is wanted."""

    async def run(self, beside: int) -> None:
        """Make one request after another for the front, and *beside* it as many. Raises as `fill`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._lead, nursery.cancel_scope)
            async with trio.open_nursery() as others:
                for _ in range(beside):
                    others.start_soon(self._accompany, others.cancel_scope)
        self._staged.grown(self._window.front)
        if self._failed is not None:
            raise self._failed

    async def _lead(self, everything: trio.CancelScope) -> None:
        failed = await outcome(self._fill_front())
        self._failed = failed or self._failed
        everything.cancel()

    async def _accompany(self, others: trio.CancelScope) -> None:
        failed = await outcome(self._fill_beside())
        if failed is None:
            return
        if not isinstance(failed, RegistryError):
            self._failed = failed
        log.debug("%s: going on with one request: %s", self._descriptor.digest, failed)
        self._ended = True
        self._given_back.set()
        others.cancel()

    async def _fill_front(self) -> None:
        while not (self._window.is_complete or self._ended):
            taken = self._window.take()
            if taken is None:
                self._given_back = trio.Event()
                await self._given_back.wait()
                continue
            number, start, end = taken
            question = Receive(self._repository, self._descriptor, start, self._name, end)
            if not await self._request(number, start, question):
                log.debug("%s: going on with one request: no range was sent", self._descriptor.digest)
                return

    async def _fill_beside(self) -> None:
        while not (self._window.is_complete or self._ended):
            done = self._done
            taken = self._window.take()
            if taken is None:
                await done.wait()
                continue
            number, start, end = taken
            question = ReceivePiece(self._repository, self._descriptor, start, end, self._name)
            if not await self._request(number, start, question):
                await done.wait()  # others want the place; once a piece is whole there may be one

    async def _request(self, number: int, start: int, question: Receive | ReceivePiece) -> bool:
        """Ask for a piece, and keep it; return whether there was a place, and a range for an answer."""
        try:
            answered = await self._origin.ask(question, self._staged.descriptors, partial(self._told, number))
            if answered:
                await self._keep(number, start)
            return answered
        finally:
            self._give_back(number)

    def _told(self, number: int, until: int) -> None:
        self._window.arrived(number, until)
        self._tell()

    def _tell(self) -> None:
        if self._window.front > self._front:
            self._front = self._window.front
            self._arrived(self._front)

    async def _keep(self, number: int, start: int) -> None:
        """Note that a piece is here, if it is. Raises StoreFull, StoreError, RegistryMisbehaved."""
        if not self._window.has_all(number):
            if self._window.start(number) - start < _PROGRESS:
                raise RegistryMisbehaved(f"{self._descriptor.digest}: the answer to a range ended at once")
            return
        async with self._noting:
            await trio.to_thread.run_sync(self._staged.keep, (number,))
        done, self._done = self._done, trio.Event()
        done.set()

    def _give_back(self, number: int) -> None:
        self._window.give_back(number)
        self._given_back.set()
        self._tell()
