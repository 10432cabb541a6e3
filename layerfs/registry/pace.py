"""Whether a body still comes fast enough to be waited for. Pure: times are arguments.

The time between two bytes is limited elsewhere; without a limit on the average, a byte a minute would hold a
connection and its place for years.
"""

import msgspec


class Pace(msgspec.Struct):
    """Counts what arrives while somebody waits for it."""

    least: int
    """Bytes a second."""
    window: float
    """Seconds over which the average is taken."""
    _waited: float = 0.0
    _arrived: int = 0

    def keeps(self, waited: float, arrived: int) -> bool:
        """Say whether a body that brought *arrived* bytes more, after *waited* seconds, is still fast enough.

        Only waiting counts: a disk that is slow to take the bytes is not the server's fault.
        """
        self._waited += waited
        self._arrived += arrived
        if self._waited < self.window:
            return True
        fast = self._arrived >= self.least * self._waited
        self._waited, self._arrived = 0.0, 0
        return fast
