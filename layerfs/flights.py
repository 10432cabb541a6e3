"""Single flight: many callers, one job. Moves results between tasks; decides nothing else.

Successes are handed to every waiter, failures too, and neither is remembered: the next caller starts anew.
Between the look-up of a flight and its creation there is no await, so there is never a second leader.

Who runs the job is the option. In a nursery that was given, no caller can cancel it: one that gives up ends
its own wait and nothing else, and the work goes on for the others, or for the next one who asks. A job that
nobody but callers in `ending_with_callers` has ever asked for ends with the last of them. Without a
nursery the first caller runs it, for jobs that need not outlive their callers: if that caller is cancelled,
so is the job, and the next waiter runs its own from the start.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Generic, TypeVar

import msgspec
import trio

from layerfs.errors import LayerfsError, retold
from layerfs.machine import machine_fault

log = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")


_ends: Final[ContextVar[bool]] = ContextVar("ends with its callers", default=False)
"""Inherited by the tasks of jobs, and so by the jobs that they ask for."""


@contextmanager
def ending_with_callers() -> Iterator[None]:
    """Have what the block alone asks for end when it is cancelled, as work that nobody else wants."""
    before = _ends.set(True)
    try:
        yield
    finally:
        _ends.reset(before)


class _Flight(msgspec.Struct, Generic[V], eq=False):
    landed: trio.Event = msgspec.field(default_factory=trio.Event)
    values: list[V] = msgspec.field(default_factory=list)
    error: Exception | None = None
    scope: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    waiting: int = 0
    stays: bool = False
    """Whether somebody has asked for it whose going ends nothing."""

    async def wait(self) -> None:
        """Wait until it has landed, as one of its callers; who is the last to go waits until it has ended."""
        self.stays = self.stays or not _ends.get()
        self.waiting += 1
        try:
            await self.landed.wait()
        finally:
            self.waiting -= 1
            if not (self.waiting or self.stays or self.landed.is_set()):
                self.scope.cancel()
                with trio.CancelScope(shield=True):
                    await self.landed.wait()


class SingleFlight(Generic[K, V]):
    """Run at most one job a key at any time: in *nursery*, or in the task of the first caller."""

    def __init__(self, nursery: trio.Nursery | None = None) -> None:
        self._nursery = nursery
        self._flights: dict[K, _Flight[V]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def do(self, key: K, job: Callable[[], Awaitable[V]]) -> V:
        """Return what *job* returns, or what the flight already under way for *key* returns.

        Raises what the job raised, as a fresh exception of the same class for every waiter.
        """
        while True:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = _Flight(stays=self._nursery is None)
                if self._nursery is None:
                    await self._run(key, flight, job)
                else:
                    self._nursery.start_soon(self._run, key, flight, job)
            await flight.wait()
            if flight.values:
                return flight.values[0]
            if flight.scope.cancel_called:  # all who wanted it had gone: whatever came of it, it begins anew
                continue
            if isinstance(flight.error, LayerfsError):
                raise retold(flight.error) from flight.error
            if flight.error is not None or self._nursery is not None:
                raise LayerfsError(f"internal error: {flight.error!r}") from flight.error
            # Its leader was cancelled: the next one leads.

    async def _run(self, key: K, flight: _Flight[V], job: Callable[[], Awaitable[V]]) -> None:
        try:
            with flight.scope:
                flight.values.append(await job())
        except LayerfsError as exc:
            flight.error = exc
        except Exception as exc:  # one bad layer must not end the others
            flight.error = machine_fault(exc)
            if flight.error is None:
                log.exception("unexpected failure of the work on %s", key)
                flight.error = exc
        finally:  # no await below: nothing can interrupt the clean-up
            del self._flights[key]
            flight.landed.set()
