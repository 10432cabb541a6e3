"""What compressed and uncompressed bytes look like to those who move them."""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

CHUNK: Final = 128 * 1024
"""Bytes that are read of a blob at a time."""

MEMORY_MAX: Final = 1 << 27
"""Bytes of a window or a dictionary that a stream may ask for: what ``zstd --long=27`` writes."""


class Readable(Protocol):
    """Bytes, read forwards."""

    def read(self, size: int, /) -> bytes:
        """Return at most *size* bytes, nothing at the end."""


class RawStream(Readable, Protocol):
    """Where compressed bytes come from."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of *buffer*; 0 at the end."""


class Stream(Protocol):
    """Uncompressed bytes, read forwards."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of *buffer*; 0 at the end."""


Open = Callable[[RawStream], Stream]
"""``open_stream`` of a module: the stream raises what its library does, and EOFError where it stops early."""


class Prefixed(msgspec.Struct):
    """A raw stream whose first bytes were read already, to sniff at them."""

    start: bytes
    rest: Readable

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of *buffer*; 0 at the end."""
        data = self.read(min(len(buffer), CHUNK))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int, /) -> bytes:
        """Return at most *size* bytes, nothing at the end."""
        if self.start:
            data, self.start = self.start[:size], self.start[size:]
            return data
        return self.rest.read(size)
