"""A faster loop for pyfuse3: look at the device for some microseconds before sleeping, and swap no locks.

pyfuse3 takes its event loop from its module global ``trio``, at call time. `installed` puts a namespace there
that is trio but for two names. Why: to sleep and to be woken on another core costs some 45 of the 60
microseconds that a request takes, and all Python in it 10 (facts/fuse-speed.md section 2); a client that got
its answer sends the next request soon after it. Stands alone; only `session` calls it.
"""

import os
import select
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from types import SimpleNamespace, TracebackType
from typing import Any, Final, cast

import trio

from layerfs.fuse.alarm import Alarm

SPIN_SECONDS: Final = 50e-6
"""How long to look before sleeping. 20 to 200 microseconds gain the same; 10 half of it."""

TURN_REQUESTS: Final = 64
TURN_SECONDS: Final = 2e-3
"""Requests, and seconds, after which the other tasks get a turn though there is always work."""


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

    *alarm* is armed whenever a read may follow, and off in every sleep.
    """

    def __init__(self, spin: float, alarm: Alarm) -> None:
        self._spin = spin
        self._alarm = alarm
        self._polls: dict[int, Callable[[int], list[Any]]] = {}
        self._served = 0
        self._turn_ends = 0.0

    def wait_readable(self, fd: int) -> Awaitable[None]:
        """Return once *fd* is readable, at its end too. Raises what trio's function raises.

        Every `TURN_REQUESTS` or `TURN_SECONDS` it lets other tasks run and can be cancelled, however
        busy the descriptor is; a sleep is both anyway.
        """
        self._served += 1
        poll = self._polls.get(fd) or self._watch(fd)
        if self._served < TURN_REQUESTS and perf_counter() < self._turn_ends and poll(0):
            return NOTHING
        return self._wait(fd, poll)

    async def _wait(self, fd: int, poll: Callable[[int], list[Any]]) -> None:
        if self._served >= TURN_REQUESTS or perf_counter() >= self._turn_ends:
            await trio.lowlevel.checkpoint()
            self._begin_turn()
        give_up = perf_counter() + self._spin
        while perf_counter() < give_up:
            if poll(0):  # lets other threads run, too
                return
        self._alarm.disarm()
        await trio.lowlevel.wait_readable(fd)
        self._alarm.arm()
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._served = 0
        self._turn_ends = perf_counter() + TURN_SECONDS

    def _watch(self, fd: int) -> Callable[[int], list[Any]]:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        self._polls = {fd: poll.poll}
        return poll.poll


class _Overlaid(SimpleNamespace):
    """A module, but for the names given."""

    def __init__(self, module: Any, **replaced: Any) -> None:
        super().__init__(**replaced)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def spin_seconds() -> float:
    """Return how long to look: not at all on one processor, where the client cannot run meanwhile."""
    return SPIN_SECONDS if len(os.sched_getaffinity(0)) > 1 else 0.0


def namespace(reader: EagerReader) -> Any:
    """Return what stands for the module trio, with the two replaced names."""
    lowlevel = _Overlaid(trio.lowlevel, wait_readable=reader.wait_readable)
    return _Overlaid(trio, lowlevel=lowlevel, Lock=EagerLock)


@contextmanager
def installed(pyfuse3: Any) -> Iterator[None]:
    """Let the module *pyfuse3* use the faster loop in the block; to be entered in the main thread."""
    alarm = Alarm()
    original = pyfuse3.trio
    pyfuse3.trio = namespace(EagerReader(spin_seconds(), alarm))
    alarm.arm()
    try:
        yield
    finally:
        alarm.disarm()
        pyfuse3.trio = original
