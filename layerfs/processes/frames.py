"""Messages over pipes: a length of four bytes, little-endian, and that many bytes of JSON.

Moves bytes between two processes; knows no message by name. Called by `client`, `worker`, `ring`,
`writer` and, for its form, by `layerfs.fetch.messages`.
"""

import os
import struct
from typing import Final

LENGTH: Final = struct.Struct("<I")
_LIMIT: Final = 1 << 30


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
    return LENGTH.pack(len(body)) + body


def send(fd: int, body: bytes) -> None:
    """Write one message. Raises OSError, BrokenPipeError if nobody reads any more."""
    write_all(fd, frame(body))


def receive(fd: int) -> bytes | None:
    """Return the next message; None if the other side closed."""
    head = read_exactly(fd, LENGTH.size)
    if head is None:
        return None
    (size,) = LENGTH.unpack(head)
    return read_exactly(fd, size) if size <= _LIMIT else None
