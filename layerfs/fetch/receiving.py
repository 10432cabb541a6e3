"""A stream of a blob, or of a part of one, into a file. Moves bytes; verifies nothing but their number."""

from typing import Final

import trio

from layerfs.errors import SizeMismatch
from layerfs.fetch.origin import BlobChunks, Listener, Means
from layerfs.host.files import write_all_at
from layerfs.host.oserrors import disk_errors
from layerfs.oci import Descriptor

ANNOUNCED: Final = 1 << 20
"""Bytes after which it is told that they arrived: each time is a message, and a step of the daemon."""
_ANNOUNCED_SECONDS: Final = 0.5
"""Seconds after which fewer are told of: people look how far a slow download is."""


async def write_down(
    stream: BlobChunks,
    descriptor: Descriptor,
    offset: int,
    name: str,
    means: Means,
    end: int | None = None,
) -> None:
    """Write *stream* into the first of the files lent, from *offset* on; *name* is for error texts.

    Ends early at *end*: what lies behind it in the file may be bytes of another stream.

    Raises what the stream raises, SizeMismatch for one byte too much, StoreFull, StoreError.
    """
    # A server that ignores Range sends what is there already: the same bytes, or the digest fails.
    skip = offset - stream.offset
    file = _File(means.files[0], name, descriptor, offset, means.told)
    try:
        async for chunk in stream:
            passed = min(skip, len(chunk))
            skip -= passed
            file.check(len(chunk) - passed)
            part = memoryview(chunk)[passed:][: None if end is None else end - file.written]
            if means.inline:
                file.write(part)
            else:
                await trio.to_thread.run_sync(file.write, part)
            file.announce_some(trio.current_time())
            if end is not None and file.written >= end:
                break
    finally:  # a broken connection takes away nothing that arrived
        file.announce()


async def write_range(stream: BlobChunks, span: tuple[int, int], at: int, name: str, means: Means) -> int:
    """Write the bytes *span* of a blob out of *stream* into the first of the files lent, from *at* on.

    What the stream has besides is passed over. Returns how many bytes were written; tells of what came before
    the last. Raises what the stream raises, StoreFull, StoreError.
    """
    start, end = span
    position, written, announced = stream.offset, 0, 0
    try:
        async for chunk in stream:
            part = memoryview(chunk)[max(0, start - position) : max(0, end - position)]
            position += len(chunk)
            if part:
                if means.inline:
                    _put(means.files[0], part, at + written, name)
                else:
                    await trio.to_thread.run_sync(_put, means.files[0], part, at + written, name)
                written += len(part)
            if position >= end:
                break
            if written - announced >= ANNOUNCED:
                announced = written
                means.told(written)
    finally:  # a broken connection takes away nothing that arrived; of all of it the answer tells
        if announced < written < end - start:
            means.told(written)
    return written


def _put(fd: int, data: memoryview, at: int, name: str) -> None:
    with disk_errors(f"{name}: cannot write"):
        write_all_at(fd, data, at)


class _File:
    """The file that a blob goes to, and how far it is."""

    def __init__(self, fd: int, name: str, descriptor: Descriptor, offset: int, told: Listener) -> None:
        self._fd = fd
        self._name = name
        self._descriptor = descriptor
        self._told = told
        self.written = self._announced = offset
        """Bytes of the blob that it holds."""
        self._announced_at = float("-inf")

    def check(self, more: int) -> None:
        """Raise SizeMismatch if *more* bytes are too many."""
        size = self._descriptor.size
        if self.written + more > size:
            raise SizeMismatch(f"{self._descriptor.digest}: more bytes came (expected {size})")

    def write(self, data: memoryview) -> None:
        """Append *data*. Raises StoreFull, StoreError."""
        _put(self._fd, data, self.written, self._name)
        self.written += len(data)

    def announce(self) -> None:
        """Tell how much is there, if that is more than was told."""
        if self.written > self._announced:
            self._announced = self.written
            self._told(self.written)

    def announce_some(self, now: float) -> None:
        """Tell how much is there, if a piece more is, or if that was told some time before *now*."""
        more = self.written // ANNOUNCED > self._announced // ANNOUNCED
        if more or now - self._announced_at >= _ANNOUNCED_SECONDS:
            self._announced_at = now
            self.announce()
