"""What is sent: bytes, or a file in pieces, verified before its last piece goes."""

import os
from collections.abc import AsyncIterator, Callable
from typing import Final, Self

import msgspec
import trio

from layerfs.errors import StoreDamaged
from layerfs.oci import Digest

_PIECE: Final = 16 * 1024
"""Bytes that are sent at a time: each time has to end before the registry counts as silent."""


class Body(msgspec.Struct, frozen=True):
    """The body of a request, which may be sent several times."""

    media_type: str
    size: int
    """In bytes."""
    opened: Callable[[], bytes | AsyncIterator[bytes]]

    @classmethod
    def of(cls, content: bytes, media_type: str) -> "Body":
        """Make one of bytes."""
        return cls(media_type, len(content), lambda: content)

    @classmethod
    def of_file(
        cls, fd: int, size: int, digest: Digest, told: Callable[[int], object] = lambda _: None
    ) -> "Body":
        """Make one of an open file, lent, that must hash to *digest*; *told* hears how much was sent."""
        return cls("application/octet-stream", size, lambda: _Pieces(fd, size, digest, told))


class _Pieces:
    """The bytes of a file. Raises StoreDamaged before the last ones if they are not what they should be."""

    def __init__(self, fd: int, size: int, digest: Digest, told: Callable[[int], object]) -> None:
        self._fd = fd
        self._size = size
        self._digest = digest
        self._hasher = digest.hasher()
        self._position = 0
        self._told = told

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        self._told(self._position)  # what was handed out before has gone
        if self._position == self._size:
            raise StopAsyncIteration
        piece = await trio.to_thread.run_sync(self._read)
        self._position += len(piece)
        return piece

    def _read(self) -> bytes:
        try:
            piece = os.pread(self._fd, min(_PIECE, self._size - self._position), self._position)
        except OSError as exc:
            raise StoreDamaged(f"{self._digest}: cannot be read: {exc.strerror}") from exc
        self._hasher.update(piece)
        at_end = self._position + len(piece) == self._size
        if not piece or (at_end and Digest.finish(self._digest.algorithm, self._hasher) != self._digest):
            raise StoreDamaged(f"{self._digest}: the blob in the store has other bytes")
        return piece
