"""A faster loop for pyfuse3: look at the device for some microseconds before sleeping, and swap no locks.

pyfuse3 takes its event loop from its module global ``trio``, at call time. `installed` puts a namespace there
that is trio but for two names. Why: to sleep and to be woken on another core costs some 45 of the 60
microseconds that a request takes, and all Python in it 10; a client that got its answer sends the next
request soon after it. docs/performance.md has the numbers with and without.
"""

import os
import select
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from types import ModuleType, SimpleNamespace, TracebackType
from typing import Any, Final, cast

import trio

from layerfs.fuse.alarm import Alarm

SPIN_SECONDS: Final = 50e-6
"""How long to look before sleeping. 20 to 200 microseconds gain the same; 10 half of it."""

TURN_SECONDS: Final = 1e-3
"""After how long the other tasks get a turn though there is always work; with a collection of garbage and one
long request on top, a timer is still late by less than 5 milliseconds."""


class _Nothing(tuple[()]):
    """An awaitable that is done, for a tenth of the price of a coroutine."""

    __slots__ = ()
    __await__ = tuple.__iter__  # written in C, as it is called for each request


NOTHING: Final = cast("Awaitable[None]", _Nothing())


class EagerLock:
    """A lock for the tasks of one loop that takes no turn of the scheduler when it is free.

    trio.Lock lets other tasks run at each acquisition, and then costs a system call a request. Here a task
    that released the lock may take it again before the one it has woken; the woken one finds it taken and
    parks again. That is wanted: whoever is running serves the next request.
    """

    def __init__(self) -> None:
        self._held = False
        self._parked = trio.lowlevel.ParkingLot()

    def __aenter__(self) -> Awaitable[None]:
        if self._held:
            return self._wait()
        self._held = True
        return NOTHING

    async def _wait(self) -> None:
        while self._held:
            await self._parked.park()
        self._held = True

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Awaitable[None]:
        self._held = False
        if self._parked:
            self._parked.unpark()
        return NOTHING


class EagerReader:
    """Waits until a descriptor is readable, looking for *spin* seconds before it lets the thread sleep.

    *alarm* is armed whenever a read may follow, and rests in every sleep.
    """

    def __init__(self, spin: float, alarm: Alarm) -> None:
        self._spin = spin
        self._alarm = alarm
        self._polls: dict[int, Callable[[int], list[Any]]] = {}
        self._turn_ends = 0.0

    def wait_readable(self, fd: int) -> Awaitable[None]:
        """Return once *fd* is readable, at its end too. Raises what trio's function raises.

        After `TURN_SECONDS` it lets other tasks run and can be cancelled, however busy the descriptor is;
        a sleep is both anyway.
        """
        poll = self._polls.get(fd) or self._watch(fd)
        now = perf_counter()
        if now >= self._turn_ends:
            return self._take_turns(fd, poll)
        return NOTHING if self._look(poll, now) else self._sleep(fd)

    async def _take_turns(self, fd: int, poll: Callable[[int], list[Any]]) -> None:
        # In the first turn of the others the timers that are due wake their tasks, in the second these run.
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        now = perf_counter()
        self._turn_ends = now + TURN_SECONDS
        if not self._look(poll, now):
            await self._sleep(fd)

    def _look(self, poll: Callable[[int], list[Any]], now: float) -> bool:
        """Say whether there is something to read, at last after the spin."""
        give_up = now + self._spin
        while not poll(0):  # lets other threads run, too
            if perf_counter() >= give_up:
                return False
        return True

    async def _sleep(self, fd: int) -> None:
        self._alarm.rest()
        await trio.lowlevel.wait_readable(fd)
        self._alarm.arm()
        self._turn_ends = perf_counter() + TURN_SECONDS

    def _watch(self, fd: int) -> Callable[[int], list[Any]]:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        self._polls = {fd: poll.poll}
        return poll.poll


def _copy(module: ModuleType, **replaced: Any) -> SimpleNamespace:
    """Return the names of *module*, but for those given; copied, as each request looks them up."""
    return SimpleNamespace(**{**vars(module), **replaced})


def spin_seconds() -> float:
    """Return how long to look: not at all on one processor, where the client cannot run meanwhile."""
    return SPIN_SECONDS if len(os.sched_getaffinity(0)) > 1 else 0.0


def namespace(reader: EagerReader) -> SimpleNamespace:
    """Return what stands for the module trio, with the two replaced names."""
    lowlevel = _copy(trio.lowlevel, wait_readable=reader.wait_readable)
    return _copy(trio, lowlevel=lowlevel, Lock=EagerLock)


@contextmanager
def installed(pyfuse3: Any, spin: float) -> Iterator[None]:
    """Let the module *pyfuse3* use the faster loop in the block, looking for *spin* seconds.

    To be entered in the main thread.
    """
    alarm = Alarm()
    original = pyfuse3.trio
    pyfuse3.trio = namespace(EagerReader(spin, alarm))
    alarm.arm()
    try:
        yield
    finally:
        alarm.disarm()
        pyfuse3.trio = original
