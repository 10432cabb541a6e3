"""What is known of a server while the client lives: which scheme it speaks, whether it is left alone.

Decides nothing about requests; `layerfs.registry.requester` asks, and says here what came of it.
"""

import random
from collections.abc import Mapping
from typing import Final

import msgspec
import trio

from layerfs.registry.attempts import Outcome
from layerfs.registry.challenge import Challenge
from layerfs.registry.hosts import Host

REST: Final = 30.0
"""Seconds for which a server that does not connect is left alone, where others can be asked."""
_JITTER: Final = 0.2
"""So that a fleet does not come back to it all at once."""


class KnownServer(msgspec.Struct):
    """One endpoint: a registry or a mirror, with TLS or without."""

    hosts: tuple[Host, ...]
    passed_over: set[Host] = msgspec.field(default_factory=set)
    """Hosts that did not answer for the server when another did."""
    paused_until: float = 0.0
    """trio time; set by a Retry-After, for all requests to this server."""
    resting_until: float = 0.0
    """trio time; set by a failure to connect, for requests that others can answer."""
    challenges: dict[Host, tuple[Challenge, ...]] = msgspec.field(default_factory=dict)
    """What each host answers at /v2/, where it is asked only if a 401 says nothing."""
    warnings: set[str] = msgspec.field(default_factory=set)

    @property
    def to_ask(self) -> list[Host]:
        """The hosts to try, in this order; never empty."""
        return [host for host in self.hosts if host not in self.passed_over]

    @property
    def left_alone(self) -> float:
        """Seconds for which others should be asked instead; 0 if it may be asked."""
        return max(0.0, max(self.resting_until, self.paused_until) - trio.current_time())

    def choose(self, outcomes: Mapping[Host, Outcome]) -> Outcome:
        """Return the outcome that counts, of the hosts tried in this order, and remember whose it is."""
        answering = [host for host, outcome in outcomes.items() if outcome.status is not None]
        if not answering:
            self.passed_over.clear()  # next time all are tried: one may have come back with or without TLS
            self.rest()
            return next(iter(outcomes.values()))
        self.resting_until = 0.0
        self.passed_over |= outcomes.keys()
        self.passed_over.discard(answering[-1])
        return outcomes[answering[-1]]

    def rest(self) -> None:
        """Leave it alone for a while: it does not connect, or gives wrong bytes."""
        self.resting_until = trio.current_time() + REST * random.uniform(1 - _JITTER, 1 + _JITTER)

    async def end_of_pause(self) -> None:
        """Wait as long as the server has asked to be left alone."""
        while self.paused_until > trio.current_time():  # noqa: ASYNC110 - others may prolong it
            await trio.sleep_until(self.paused_until)
