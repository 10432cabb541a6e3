"""Single flight: many callers, one job. Moves results between tasks; decides nothing else.

Successes are handed to every waiter, failures too, and neither is remembered: the next caller starts anew.
Between the look-up of a flight and its creation there is no await, so there is never a second leader.

Who runs the job is the option. In a nursery that was given, no caller can cancel it: one that gives up ends
its own wait and nothing else, and the work goes on for the others, or for the next one who asks. Without a
nursery the first caller runs it, for jobs that need not outlive their callers: if that caller is cancelled,
so is the job, and the next waiter runs its own from the start.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import msgspec
import trio

from layerfs.errors import LayerfsError, retold
from layerfs.machine import machine_fault

log = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")


class _Flight(msgspec.Struct, Generic[V], eq=False):
    landed: trio.Event = msgspec.field(default_factory=trio.Event)
    values: list[V] = msgspec.field(default_factory=list)
    error: Exception | None = None


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
                flight = self._flights[key] = _Flight()
                if self._nursery is None:
                    await self._run(key, flight, job)
                else:
                    self._nursery.start_soon(self._run, key, flight, job)
            await flight.landed.wait()
            if flight.values:
                return flight.values[0]
            if isinstance(flight.error, LayerfsError):
                raise retold(flight.error) from flight.error
            if flight.error is not None or self._nursery is not None:
                raise LayerfsError(f"internal error: {flight.error!r}") from flight.error
            # Its leader was cancelled: the next one leads.

    async def _run(self, key: K, flight: _Flight[V], job: Callable[[], Awaitable[V]]) -> None:
        try:
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
