"""Whether a download that broke off is resumed, and after how long. Pure: chance is an argument."""

import math
import random
from collections.abc import Callable

import msgspec


class Backoff(msgspec.Struct):
    """Judge whether a broken download goes on: as long as it makes progress.

    c/image resumes if a MiB came since the last failure; so do we, and besides give a registry
    that restarts a few attempts without any progress.
    """

    attempts: int = 5
    """Failures in a row without progress before giving up."""
    base: float = 0.5
    cap: float = 10.0
    patience: float = math.inf
    """Seconds without a byte, all attempts included, before giving up."""
    progress: int = 64 << 10
    """Bytes since the last failure that count as progress."""
    chance: Callable[[], float] = random.random
    _failures: int = 0
    _received: int = 0

    def failed(self, received: int, silent: float = 0) -> float | None:
        """Return how long to wait before resuming at offset *received*; None to give up.

        *silent* is how many seconds ago the last byte came.
        """
        if received - self._received >= self.progress:
            self._failures = 0
        self._received = max(self._received, received)
        self._failures += 1
        if self._failures > self.attempts or silent >= self.patience:
            return None
        longest: float = min(self.cap, self.base * 2.0 ** (self._failures - 1))
        # Half of it at least: the first cause is a registry that is just starting again.
        return longest * (0.5 + self.chance() / 2)
