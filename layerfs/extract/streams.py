"""Decompression: the archive inside a blob, whatever it is compressed with.

Decides by the first bytes (a media type is only compared), and moves bytes into the caller's buffers. Every
format is read to the blob's end: several members or frames are one stream, and a stream that stops early is
refused. Must know no archive format. Called by `pipeline`.
"""

import bz2
from collections.abc import Callable
from dataclasses import dataclass
from gzip import BadGzipFile
from typing import BinaryIO, Final, Protocol, cast

from isal import isal_zlib

from layerfs.errors import InvalidArchive
from layerfs.extract.tail import CHUNK, Tail
from layerfs.layer.record import Compression
from layerfs.oci import mediatype

WINDOW_MAX: Final = 1 << 27
"""Bytes of a zstd window, what zstd --long=27 writes; also the memory that xz may take for its own."""
_XZ_OVERHEAD: Final = 1 << 24


class RawStream(Protocol):
    """Where compressed bytes come from."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of *buffer*; 0 at the end."""

    def read(self, size: int, /) -> bytes:
        """Return at most *size* bytes, nothing at the end."""


class Stream(Protocol):
    """Uncompressed bytes, read forwards."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of *buffer*; 0 at the end. Raises InvalidArchive."""


class _Decompressor(Protocol):
    """What bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


_MAGIC: Final[dict[Compression, bytes]] = {
    "gzip": b"\x1f\x8b",
    "zstd": b"\x28\xb5\x2f\xfd",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\0",
}
_SKIPPABLE: Final = b"\x2a\x4d\x18"
"""After a byte 0x50 to 0x5f: a zstd frame without content, which may come first."""


def sniff(start: bytes) -> Compression:
    """Say by the first bytes of a blob how it is compressed."""
    for compression, magic in _MAGIC.items():
        if start.startswith(magic):
            return compression
    return "zstd" if start[1:4] == _SKIPPABLE and start[0] & 0xF0 == 0x50 else "none"


@dataclass(slots=True)
class Prefixed:
    """A raw stream whose first bytes were read already, to sniff at them."""

    start: bytes
    rest: Tail

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


def open_stream(compression: Compression, raw: RawStream) -> Stream:
    """Return the uncompressed bytes of *raw*."""
    match compression:
        case "none":
            return raw
        case "gzip":
            return _Gzip(raw)
        case "zstd":
            from layerfs.extract.zstd import ZstdStream

            return ZstdStream(raw, WINDOW_MAX)
        case "bzip2":
            return _Chunked(raw, bz2.BZ2Decompressor, OSError, "bzip2")
        case "xz":
            import lzma

            def decompressor() -> lzma.LZMADecompressor:
                return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW_MAX + _XZ_OVERHEAD)

            return _Chunked(raw, decompressor, lzma.LZMAError, "xz")


def media_type_disagrees(media_type: str, compression: Compression) -> bool:
    """Say whether *media_type* promises another compression than the one found."""
    return media_type in mediatype.LAYERS and mediatype.compression_of(media_type) != compression


_GZIP_ERRORS: Final[tuple[type[Exception], ...]] = (
    BadGzipFile,
    EOFError,
    cast("type[Exception]", isal_zlib.error),
)


class _Gzip:
    def __init__(self, raw: RawStream) -> None:
        self._reader = isal_zlib._GzipReader(cast("BinaryIO", raw), CHUNK)

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            return int(self._reader.readinto(buffer))
        except _GZIP_ERRORS as exc:
            raise InvalidArchive(f"gzip: {exc}") from None


class _Chunked:
    """Streams of the standard library's decompressors, one after another."""

    def __init__(
        self, raw: RawStream, make: Callable[[], _Decompressor], error: type[Exception], name: str
    ) -> None:
        self._raw = raw
        self._make = make
        self._error = error
        self._name = name
        self._pushed_back = b""
        self._decompressor: _Decompressor | None = make()

    def readinto(self, buffer: memoryview, /) -> int:
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
                raise InvalidArchive(f"{self._name}: the stream is truncated")
        try:
            return decompressor.decompress(data, size)
        except self._error as exc:
            raise InvalidArchive(f"{self._name}: {exc}") from None

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
