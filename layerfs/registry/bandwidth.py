"""How many bytes a second are taken in at most, over all connections: a token bucket.

Each reader reserves the time that its bytes take, and sleeps until that is over; so nobody is passed by. What
a task reserved that was cancelled is lost, which is little.
"""

from typing import Final

import trio

_BURST: Final = 0.1
"""Seconds of bytes that may come at once after a rest."""


class Bandwidth:
    """*rate* bytes a second, None for no limit. For the tasks of one loop."""

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._free = float("-inf")
        """When all that was taken has had its time."""

    async def take(self, size: int) -> None:
        """Wait until *size* bytes more fit."""
        if self._rate is None:
            return
        now = trio.current_time()
        self._free = max(self._free, now - _BURST) + size / self._rate
        if self._free > now:
            await trio.sleep_until(self._free)
