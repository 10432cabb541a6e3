"""When to ask a registry again, and after how long. Pure: time and chance are arguments.

`RetryPolicy` judges one request until its headers came; a download that breaks off later is judged by
`layerfs.fetch.backoff`.
"""

import random
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec

from layerfs.errors import LayerfsError, retold

STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 522, 524})
"""Statuses that may pass by themselves: the union of what containerd, c/image and crane retry, less 499."""


class RetryPolicy(msgspec.Struct, frozen=True):
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


E = TypeVar("E", bound=LayerfsError)


def given_up(error: E, seconds: float, attempts: int) -> E:
    """Return *error* with how long was waited for something else, where that was not at once."""
    if attempts == 1 and seconds < 1:
        return error
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    return retold(error, f"{error.text} (given up after {seconds:.0f} s and {times})")


def parse_retry_after(text: str | None, now: datetime | None = None) -> float | None:
    """Read a Retry-After header, seconds or a date, as seconds from now; None if absent or unreadable."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:10])
    from email.utils import parsedate_to_datetime  # brings half of email

    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - (now or datetime.now(UTC))).total_seconds())
