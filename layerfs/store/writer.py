"""Bytes hashed and counted on their way to a file; part of the public API."""

import hashlib
from errno import EIO
from typing import Generic, Protocol, TypeVar

from layerfs.errors import SizeMismatch


class Writable(Protocol):
    """Whatever takes bytes and says how many it took."""

    def write(self, data: bytes | memoryview, /) -> int | None:
        """Take some of *data*."""


W = TypeVar("W", bound=Writable)


class HashingWriter(Generic[W]):
    """Pass bytes on to *inner*; hash and count what it accepts, nothing else.

    With a *limit*, the first byte beyond it raises SizeMismatch and is not written.
    """

    def __init__(
        self, inner: W, algorithm: str = "sha256", *, limit: int | None = None, name: str = "stream"
    ) -> None:
        self._inner = inner
        self._hasher = hashlib.new(algorithm)
        self._limit = limit
        self._name = name
        self.bytes_written = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of *data* and return its length. Raises SizeMismatch, OSError."""
        rest = memoryview(data).cast("B")
        if self._limit is not None and self.bytes_written + len(rest) > self._limit:
            raise SizeMismatch(f"{self._name}: more bytes came (expected {self._limit})")
        while rest:
            taken = self._inner.write(rest)
            if not taken:
                raise OSError(EIO, f"{self._name}: the file accepts no more bytes")
            self.already(rest[:taken])
            rest = rest[taken:]
        return len(data)

    def already(self, data: bytes | memoryview) -> None:
        """Count and hash bytes that *inner* holds since an earlier attempt."""
        self._hasher.update(data)
        self.bytes_written += len(data)

    def finalize(self) -> tuple[W, str, int]:
        """Return the inner writer, the hash as lowercase hex, and the number of bytes."""
        return self._inner, self._hasher.hexdigest(), self.bytes_written
