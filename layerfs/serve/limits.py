"""What a stranger may cost: the limits of a server, and the patience with who reads slowly. Pure."""

from typing import Final

import msgspec

CONNECTIONS: Final = 512
"""Connections at the same time, unless the settings say otherwise."""


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a server spends on those who ask."""

    connections: int = CONNECTIONS
    """At the same time, in all."""
    head_bytes: int = 16 << 10
    """Request line and headers; what podman, skopeo and containerd send is below 2 KiB."""
    head_seconds: float = 10.0
    """From the first byte of a request to the end of its head, and for a TLS handshake."""
    idle_seconds: float = 60.0
    """How long a connection may wait for its next request."""
    requests: int = 10_000
    """Requests of one connection; the last one's answer closes it."""
    least: int = 8 << 10
    """Bytes a second that a reader takes on the average."""
    patience_seconds: float = 30.0
    """How far a reader may fall behind that."""
    grace_seconds: float = 30.0
    """How long what is being sent may go on when the server is told to end."""

    @property
    def of_a_peer(self) -> int:
        """Connections at the same time from one address: an eighth, so that no seven of them take all."""
        return max(8, self.connections // 8)


class Patience:
    """How long somebody may still be waited for, who is to take *least* bytes a second on the average.

    What was taken quickly at first is no credit for a long silence later: it fills up to *most* seconds.
    """

    def __init__(self, least: int, most: float) -> None:
        self._least = least
        self._most = most
        self.seconds = most
        """What is left."""

    def spend(self, waited: float, taken: int) -> None:
        """Take note that after *waited* seconds *taken* bytes more were taken."""
        self.seconds = min(self._most, self.seconds - waited + taken / self._least)
