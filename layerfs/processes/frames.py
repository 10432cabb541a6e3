"""Messages over pipes and sockets: a length of four bytes, little-endian, and that many bytes of JSON.

Moves bytes between two processes; knows no message by name. `send` and `receive` block; `Unframer` takes
bytes as they come.
"""

import os
import struct
from collections.abc import Iterator
from typing import Final

from layerfs.errors import WorkerDied

_LENGTH: Final = struct.Struct("<I")
_LIMIT: Final = 1 << 30
_UNFRAMED_LIMIT: Final = 64 << 20
"""Bytes of a message on a socket; the longest carries a manifest of 4 MiB as base64."""


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of *data*. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read_exactly(fd: int, size: int) -> bytes | None:
    """Return *size* bytes; None if the other side closed before the last of them."""
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def frame(body: bytes) -> bytes:
    """Return *body* as it travels."""
    return _LENGTH.pack(len(body)) + body


def send(fd: int, body: bytes) -> None:
    """Write one message. Raises OSError, BrokenPipeError if nobody reads any more."""
    write_all(fd, frame(body))


def receive(fd: int) -> bytes | None:
    """Return the next message; None if the other side closed."""
    head = read_exactly(fd, _LENGTH.size)
    if head is None:
        return None
    (size,) = _LENGTH.unpack(head)
    return read_exactly(fd, size) if size <= _LIMIT else None


class Unframer:
    """Bytes as they come to whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take *data*, and yield the body of each message that is whole. Raises WorkerDied."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer)
            if size > _UNFRAMED_LIMIT:
                raise WorkerDied(f"a message of {size} bytes (expected at most {_UNFRAMED_LIMIT})")
            end = _LENGTH.size + size
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield body
