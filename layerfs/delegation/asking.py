"""The command's end: finds a daemon that does it, and hears what there is to write.

By `_socket`: `socket` makes enumerations of its constants first, for 3 ms, of the 30 that a command has.
"""

import _socket
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Final

from layerfs.delegation import places
from layerfs.delegation.wire import ALIVE, ALIVE_SECONDS, FRAME_MAX, HEAD, KINDS, REQUEST_MAX, TAKEN

PATIENCE: Final = 0.5
"""Seconds for an answer. A daemon that lives takes a few ms, and more than 100 where ten want two processors;
doing it without one takes half a second there is time for, and four times that where there is none."""
SILENCE: Final = 6 * ALIVE_SECONDS
"""Seconds without a frame after which the daemon stands still."""
_TRIED: Final = 8
"""Daemons that are asked, of however many stores there are mounts."""
_CLOSING: Final = 2.0
"""Seconds that a daemon has to let go of what it was doing."""
_READ: Final = 1 << 16


class Channel:
    """A connection to a daemon that has taken the work."""

    def __init__(self, link: _socket.socket) -> None:
        self._link = link
        self._buffer = b""

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield kind and content of what it says, until it ends, is silent for long, or makes no sense."""
        while (head := self._take(HEAD)) is not None:
            kind, size = head[:1], int.from_bytes(head[1:], "big")
            if kind not in KINDS or size > FRAME_MAX:
                return
            payload = self._take(size)
            if payload is None:
                return
            if kind != ALIVE:
                yield kind, payload

    def resized(self, width: int, height: int) -> None:
        """Say how large the terminal is now."""
        try:
            self._link.send(width.to_bytes(2, "big") + height.to_bytes(2, "big"))
        except OSError:  # it has gone, which whoever reads will see
            return

    def patient(self, seconds: float | None) -> None:
        """Wait so long for what comes next; None: as long as it takes."""
        self._link.settimeout(seconds)

    def call_off(self) -> None:
        """Have the daemon stop, and return once it has let go of the work."""
        try:
            self._link.settimeout(_CLOSING)
            self._link.shutdown(_socket.SHUT_WR)
            while self._link.recv(_READ):
                pass
        except OSError:  # it takes too long, or has gone
            return

    def close(self) -> None:
        """Give the connection back."""
        self._link.close()

    def _take(self, count: int) -> bytes | None:
        while len(self._buffer) < count:
            try:
                more = self._link.recv(_READ)
            except OSError:
                return None
            if not more:
                return None
            self._buffer += more
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken


def asked(request: bytes, environ: Mapping[str, str]) -> Channel | None:
    """Have a daemon of this user take *request*; None if there is none that does."""
    uid = os.geteuid()
    directory = places.directory(environ, uid)
    if directory is None or len(request) > REQUEST_MAX or not places.is_private(directory, uid):
        return None
    for path in places.sockets(directory)[:_TRIED]:
        channel = _asked_at(path, request, uid)
        if channel is not None:
            return channel
    return None


def _asked_at(path: str, request: bytes, uid: int) -> Channel | None:
    link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    channel = Channel(link)
    try:
        link.settimeout(PATIENCE)
        link.connect(path)
        if _uid_of(link) == uid:  # before it hears anything
            link.sendall(request)
            kind, _ = next(channel.frames(), (b"", b""))
            if kind == TAKEN:
                link.settimeout(SILENCE)
                return channel
    except OSError:  # nobody listens, or it does not answer
        pass
    channel.close()
    return None


def _uid_of(link: _socket.socket) -> int:
    credentials = link.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder)
