"""zstd streams: several frames, skippable ones among them, and an end that is a frame's end.

The library takes a stream that stops inside a frame for one that ends. So `FrameScanner` follows the frames
(RFC 8878, section 3.1) by the lengths they state, without decoding.
"""

from collections.abc import Callable
from typing import IO, Final, cast

import zstandard

from layerfs.compression.base import CHUNK, MEMORY_MAX, RawStream, Stream

_MAGIC: Final = 0xFD2FB528
_SKIPPABLE: Final = 0x184D2A50
_DICTIONARY_ID: Final = (0, 1, 2, 4)
_CONTENT_SIZE: Final = (0, 2, 4, 8)
_RLE_BLOCK: Final = 1

_State = Callable[["FrameScanner", bytes], None]
"""What to do with the bytes that were waited for."""


class FrameScanner:
    """Follows the frames of a stream that is fed to it in any pieces; does not judge what they hold."""

    def __init__(self) -> None:
        self._head = b""
        self._wanted = 4
        self._skip = 0
        self._next: _State = FrameScanner._magic  # bound, it would be a circle
        self._has_checksum = False

    @property
    def at_boundary(self) -> bool:
        """Whether a frame has just ended, or none has begun."""
        return self._next is FrameScanner._magic and not self._head and not self._skip

    def feed(self, data: bytes) -> None:
        """Follow *data*."""
        position, end = 0, len(data)
        while position < end:
            if self._skip:
                step = min(self._skip, end - position)
                self._skip -= step
                position += step
            else:
                step = self._wanted - len(self._head)
                self._head += data[position : position + step]
                position += step
                if len(self._head) == self._wanted:
                    head, self._head = self._head, b""
                    self._next(self, head)

    def _magic(self, head: bytes) -> None:
        magic = int.from_bytes(head, "little")
        if magic == _MAGIC:
            self._wanted, self._next = 1, FrameScanner._descriptor
        elif magic & ~0xF == _SKIPPABLE:
            self._wanted, self._next = 4, FrameScanner._skippable
        else:
            self._skip = 1 << 62  # the decoder refuses it

    def _skippable(self, head: bytes) -> None:
        self._skip = int.from_bytes(head, "little")
        self._wanted, self._next = 4, FrameScanner._magic

    def _descriptor(self, head: bytes) -> None:
        flags = head[0]
        single_segment = flags >> 5 & 1
        content_size = _CONTENT_SIZE[flags >> 6] or single_segment
        self._has_checksum = bool(flags & 4)
        self._skip = (1 - single_segment) + _DICTIONARY_ID[flags & 3] + content_size
        self._wanted, self._next = 3, FrameScanner._block

    def _block(self, head: bytes) -> None:
        value = int.from_bytes(head, "little")
        self._skip = 1 if value >> 1 & 3 == _RLE_BLOCK else value >> 3
        if value & 1:
            self._skip += 4 if self._has_checksum else 0
            self._wanted, self._next = 4, FrameScanner._magic


class _Followed:
    """A raw stream whose bytes the scanner follows; not `ZstdStream`, lest the decoder keep itself alive."""

    def __init__(self, raw: RawStream, frames: FrameScanner) -> None:
        self._raw = raw
        self._frames = frames

    def read(self, size: int) -> bytes:
        """Return the next bytes for the decoder."""
        data = self._raw.read(size)
        self._frames.feed(data)
        return data


class ZstdStream:
    """The uncompressed bytes of a zstd blob."""

    def __init__(self, raw: RawStream) -> None:
        self._frames = FrameScanner()
        decompressor = zstandard.ZstdDecompressor(max_window_size=MEMORY_MAX)
        self._reader = decompressor.stream_reader(
            cast("IO[bytes]", _Followed(raw, self._frames)), read_size=CHUNK, read_across_frames=True
        )

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of *buffer*; 0 at the end. Raises EOFError, and what the library raises."""
        size = self._reader.readinto(buffer)
        if not size and not self._frames.at_boundary:
            raise EOFError("the stream is truncated")
        return size


def open_stream(raw: RawStream) -> Stream:
    """Return the uncompressed bytes of *raw*."""
    return ZstdStream(raw)
