"""A timer that ends a read of the FUSE device in which there was, after all, nothing to read.

The device is readable when a request waits; if its caller is killed before we read it, the kernel takes the
request back, and pyfuse3's blocking read(2), which holds the interpreter's lock, stops the whole daemon until
somebody else asks something: downloads, timers and threads (measured: 4 % of the kills of a busy client).
While requests come in, this alarm interrupts such a read every few milliseconds, and pyfuse3 tries again.
It goes off once more in a sleep of the daemon, and then stays off until it wakes: most sleeps are shorter
than the interval, and to stop and start the timer in each would cost more.
"""

import signal
import threading
from types import FrameType
from typing import Final

INTERVAL_SECONDS: Final = 5e-3
"""How long a killed caller can stop the daemon."""


class Alarm:
    """Owns SIGALRM and the real-time interval timer of this process; of use in the main thread only."""

    def __init__(self) -> None:
        self._armed = False
        self._resting = False
        self._usable = threading.current_thread() is threading.main_thread()
        if self._usable:
            # A handler of Python's is installed without SA_RESTART: the read returns EINTR.
            signal.signal(signal.SIGALRM, self._ring)

    @property
    def is_armed(self) -> bool:
        """Whether it interrupts now."""
        return self._armed

    def arm(self) -> None:
        """Begin to interrupt blocking system calls; Python's own are taken up again by themselves."""
        self._resting = False
        if not self._armed and self._usable:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, INTERVAL_SECONDS, INTERVAL_SECONDS)

    def rest(self) -> None:
        """Stop interrupting after one more interval, unless armed again before."""
        self._resting = True

    def disarm(self) -> None:
        """Stop interrupting."""
        if self._armed:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def _ring(self, _number: int, _frame: FrameType | None) -> None:
        # The signal alone interrupts the read. Safe at any point of `arm`, which clears `_resting` first: the
        # timer is then still running, or `arm` starts it.
        if self._resting:
            self.disarm()
