"""Streams of the standard library's decompressors, which end with their stream: several as one."""

from collections.abc import Callable
from typing import Protocol

from layerfs.compression.base import CHUNK, RawStream


class _Decompressor(Protocol):
    """What bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class ChainedStream:
    """The uncompressed bytes of one stream after another, up to the end of the blob."""

    def __init__(self, raw: RawStream, make: Callable[[], _Decompressor]) -> None:
        self._raw = raw
        self._make = make
        self._pushed_back = b""
        self._decompressor: _Decompressor | None = make()

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of *buffer*; 0 at the end. Raises EOFError, and what the library raises."""
        while self._decompressor is not None:
            if self._decompressor.eof:
                self._next_stream(self._decompressor.unused_data)
                continue
            data = self._decompress(self._decompressor, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0

    def _decompress(self, decompressor: _Decompressor, size: int) -> bytes:
        data = b""
        if decompressor.needs_input:
            data, self._pushed_back = self._pushed_back or self._raw.read(CHUNK), b""
            if not data:
                raise EOFError("the stream is truncated")
        return decompressor.decompress(data, size)

    def _next_stream(self, rest: bytes) -> None:
        """Begin with what follows a stream: another one, zeros up to the end, or nothing."""
        rest = rest.lstrip(b"\0")
        while not rest:
            rest = self._raw.read(CHUNK)
            if not rest:
                self._decompressor = None
                return
            rest = rest.lstrip(b"\0")
        self._decompressor = self._make()
        self._pushed_back = rest
