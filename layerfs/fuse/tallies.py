"""Counts of requests, kept where they are answered: one addition for a request that is answered at once.

A process serves one mount, so there is one table. Times are taken of those requests alone that have to wait:
of the others it would cost more than a hundredth of what answering them does.
"""

import errno
from bisect import bisect_left
from typing import Final

from layerfs.status import BUCKETS, Requests

_tallies: Final[dict[str, "Tally"]] = {}


class Tally:
    """What came of the requests of one operation."""

    __slots__ = ("asked", "failed", "seconds", "waits")

    def __init__(self) -> None:
        self.asked = 0
        self.failed: dict[int, int] = {}
        """How many were answered with an errno, by errno."""
        self.waits = [0] * (len(BUCKETS) + 1)
        """As `layerfs.status.Requests` has them."""
        self.seconds = 0.0
        """How long those waited together."""

    def refused(self, number: int) -> None:
        """Count an answer with an errno."""
        self.failed[number] = self.failed.get(number, 0) + 1

    def waited(self, seconds: float) -> None:
        """Count a request that could not be answered at once."""
        self.waits[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds


def tally_of(operation: str) -> Tally:
    """Return the counts of an operation; the same each time."""
    return _tallies.setdefault(operation, Tally())


def requests() -> tuple[Requests, ...]:
    """Return what was counted until now, of operations that were asked for."""
    return tuple(
        Requests(
            operation=operation,
            asked=tally.asked,
            failed={errno.errorcode.get(number, str(number)): n for number, n in tally.failed.items()},
            waits=tuple(tally.waits),
            seconds=tally.seconds,
        )
        for operation, tally in _tallies.items()
        if tally.asked
    )
