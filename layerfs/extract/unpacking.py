"""One `UnpackJob` in the inflating process: parts of a blob to the bytes of files.

Decodes with a cap: of each piece as many bytes as the TOC gives it. Judges no digest, for whoever keeps the
bytes does.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from errno import EIO
from typing import Final

import msgspec

from layerfs import errors
from layerfs.compression import CHUNK, Prefixed, sniff
from layerfs.compression.faults import JudgedStream
from layerfs.compression.formats import SNIFFED
from layerfs.errors import InvalidArchive, LayerfsError, NotInStore, OutOfMemory
from layerfs.extract.job import Failed, Listed, PartHere, Unpacked, UnpackJob
from layerfs.host.oserrors import disk_errors
from layerfs.layer.toc import Piece

_SAID: Final = 1 << 20
"""Bytes of a file that are said at a time."""


def run(job: UnpackJob, relay: Callable[[bytes], None]) -> Unpacked | Failed:
    """Unpack the pieces of files that are no holes, in order; *relay* their bytes."""
    try:
        with closing(_Parts(job.held)) as parts:
            for piece in (piece for content in job.contents for piece in content.pieces if piece.digest):
                for some in _unpacked(parts, piece):
                    relay(msgspec.json.encode(Listed(some)))
    except LayerfsError as exc:
        return Failed(errors.name_of(exc), f"{job.digest}: {exc}")
    except MemoryError:
        return Failed(OutOfMemory.__name__, "the extractor lacks memory (the image is not at fault)")
    return Unpacked()


def _unpacked(parts: "_Parts", piece: Piece) -> Iterator[bytes]:
    """Yield the bytes of *piece*. Raises InvalidArchive if they are not there."""
    raw = parts.between(piece.offset, piece.end)
    start = b""
    while len(start) < SNIFFED and (more := raw.read(SNIFFED - len(start))):
        start += more
    with closing(sniff(start).open(Prefixed(start, raw))) as stream:
        for size in _steps(piece.skip):
            _exactly(stream, size, piece)
        for size in _steps(piece.size):
            yield _exactly(stream, size, piece)


def _steps(size: int) -> Iterator[int]:
    for at in range(0, size, _SAID):
        yield min(_SAID, size - at)


def _exactly(stream: JudgedStream, size: int, piece: Piece) -> bytes:
    buffer = bytearray(size)
    filled = 0
    with memoryview(buffer) as view:
        while filled < size:
            count = stream.readinto(view[filled:])
            if not count:
                raise InvalidArchive(
                    f"bytes {piece.offset} to {piece.end} of the blob hold less than the TOC says "
                    f"(expected {piece.skip} bytes and then {piece.size})"
                )
            filled += count
    return bytes(buffer)


class _Parts:
    """The parts of one blob that are here. Raises StoreError, as NotInStore, InvalidArchive for others."""

    def __init__(self, held: Sequence[PartHere]) -> None:
        self._held = sorted(held, key=lambda one: one.start)
        self._open: tuple[PartHere, int] | None = None

    def between(self, start: int, end: int) -> "_Raw":
        """Return bytes of the blob, to be read forwards."""
        return _Raw(self, start, end)

    def read(self, at: int, most: int) -> bytes:
        """Return at most *most* bytes of the blob, at least one."""
        part = next((one for one in reversed(self._held) if one.start <= at < one.end), None)
        if part is None:
            raise InvalidArchive(f"byte {at} of the blob is not here")
        if self._open is None or self._open[0] is not part:
            self.close()
            with disk_errors(f"{part.path}: cannot read"):
                try:
                    self._open = part, os.open(part.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                except FileNotFoundError:  # a collection took it, or the blob that it was of is whole
                    raise NotInStore(f"{part.path}: not here any more; try again") from None
        with disk_errors(f"{part.path}: cannot read"):
            data = os.pread(self._open[1], min(most, part.end - at), at - part.start)
            if not data:
                raise OSError(EIO, "the file is shorter than it was")
        return data

    def close(self) -> None:
        """Close what is open."""
        if self._open is not None:
            os.close(self._open[1])
            self._open = None


class _Raw:
    """A part of the blob, as `layerfs.compression` reads it."""

    def __init__(self, parts: _Parts, start: int, end: int) -> None:
        self._parts = parts
        self._at = start
        self._end = end

    def read(self, size: int, /) -> bytes:
        """Return at most *size* bytes, nothing at the end."""
        wanted = min(size, self._end - self._at)
        data = self._parts.read(self._at, wanted) if wanted > 0 else b""
        self._at += len(data)
        return data

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of *buffer*; 0 at the end."""
        data = self.read(min(len(buffer), CHUNK))
        buffer[: len(data)] = data
        return len(data)
