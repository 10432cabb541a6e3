"""When to ask again, and after how long. Pure: time and chance are arguments.

Two policies. `RetryPolicy` is for one request until its headers came. `Backoff` is for a
download that breaks off in the middle: whoever resumes it (`layerfs.fetch`) asks it.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 522, 524})
"""Statuses that may pass by themselves: the union of what containerd, c/image and crane retry, less 499."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter; times in seconds."""

    attempts: int = 5
    """In all, the first included."""
    base: float = 0.5
    cap: float = 30.0
    window: float = 60.0
    """No new attempt starts later than this after the first, unless the registry named a time."""
    longest_wish: float = 120.0
    """A longer Retry-After than this is not waited for."""

    def delay(
        self, attempt: int, elapsed: float, wish: float | None = None, chance: float | None = None
    ) -> float | None:
        """Return how long to wait after the failed *attempt* (1 is the first); None to give up.

        *elapsed* since the first attempt began, *wish* from Retry-After, *chance* in 0..1.
        """
        if attempt >= self.attempts:
            return None
        drawn = random.random() if chance is None else chance
        jittered = drawn * min(self.cap, self.base * 2.0 ** (attempt - 1))
        if wish is not None:
            # A little later than asked for, so that the waiters do not come back all at once.
            return None if wish > self.longest_wish else wish + jittered / 4
        return jittered if elapsed + jittered <= self.window else None


def parse_retry_after(text: str | None, now: datetime | None = None) -> float | None:
    """Read a Retry-After header, seconds or a date, as seconds from now; None if absent or unreadable."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:10])
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())


@dataclass(slots=True)
class Backoff:
    """Judge whether a broken download goes on: as long as it makes progress.

    c/image resumes if a MiB came since the last failure; so do we, and besides give a registry
    that restarts a few attempts without any progress.
    """

    attempts: int = 5
    """Failures in a row without progress before giving up."""
    base: float = 0.5
    cap: float = 10.0
    progress: int = 64 << 10
    """Bytes since the last failure that count as progress."""
    chance: Callable[[], float] = random.random
    _failures: int = 0
    _received: int = 0

    def failed(self, received: int) -> float | None:
        """Return how long to wait before resuming at offset *received*; None to give up."""
        if received - self._received >= self.progress:
            self._failures = 0
        self._received = max(self._received, received)
        self._failures += 1
        if self._failures > self.attempts:
            return None
        longest: float = min(self.cap, self.base * 2.0 ** (self._failures - 1))
        # Half of it at least: the first cause is a registry that is just starting again.
        return longest * (0.5 + self.chance() / 2)
