"""Single flight: many callers, one job. Moves results between tasks; decides nothing else.

Contract: the job runs in the nursery given at construction, so a caller that gives up cancels its own wait
and nothing else. Successes are handed to every waiter, failures too, and neither is remembered: the next
caller starts anew. Between the look-up of a flight and its creation there is no await, so there is never a
second leader.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

from layerfs.errors import LayerfsError

log = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True, eq=False)
class _Flight(Generic[V]):
    landed: trio.Event = field(default_factory=trio.Event)
    values: list[V] = field(default_factory=list)
    error: Exception | None = None


class SingleFlight(Generic[K, V]):
    """Run at most one job a key at any time."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._flights: dict[K, _Flight[V]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def do(self, key: K, job: Callable[[], Awaitable[V]]) -> V:
        """Return what *job* returns, or what the flight already under way for *key* returns.

        Raises what the job raised, as a fresh exception of the same class for every waiter.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            self._nursery.start_soon(self._run, key, flight, job)
        await flight.landed.wait()
        if flight.values:
            return flight.values[0]
        if isinstance(flight.error, LayerfsError):
            raise type(flight.error)(*flight.error.args) from flight.error
        raise LayerfsError(f"internal error: {flight.error!r}") from flight.error

    async def _run(self, key: K, flight: _Flight[V], job: Callable[[], Awaitable[V]]) -> None:
        try:
            flight.values.append(await job())
        except LayerfsError as exc:
            flight.error = exc
        except Exception as exc:  # one bad layer must not end the others
            log.exception("unexpected failure of the work on %s", key)
            flight.error = exc
        finally:  # no await below: nothing can interrupt the clean-up
            del self._flights[key]
            flight.landed.set()
