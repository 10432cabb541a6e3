"""Objects on their way in: each piece is compared with its digest, and the whole file with its own."""

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import msgspec

from layerfs.errors import DigestMismatch, SizeMismatch
from layerfs.host.files import write_all_at
from layerfs.host.oserrors import disk_errors
from layerfs.layer.toc import Content, Piece
from layerfs.oci import Digest
from layerfs.store.locks import ByteLock

_CHUNK: Final = 1 << 20


class StoredObject(msgspec.Struct, frozen=True):
    """A file whose bytes are what its id says."""

    id: str
    path: Path
    size: int


class StagedObject:
    """The bytes of one object on their way in; removed unless committed. For one thread at a time."""

    def __init__(
        self,
        publish: "Publish",
        id_: str,
        content: Content,
        path: Path,
        fd: int,
        lock: ByteLock,
        begun: int,
    ) -> None:
        self.id = id_
        self.content = content
        self.path = path
        self.fd = fd
        self.begun = begun
        self._publish = publish
        self._lock = lock
        self._lacking = {piece.start: piece for piece in content.pieces if piece.digest}

    def piece(self, piece: Piece) -> "PieceWriter":
        """Begin to write one of the content's pieces, in any order."""
        return PieceWriter(self, piece)

    def write(self, piece: Piece, data: bytes | memoryview) -> None:
        """Write a whole piece. Raises SizeMismatch, DigestMismatch, StoreFull, StoreError."""
        writer = self.piece(piece)
        writer.write(data)
        writer.finish()

    def commit(self) -> StoredObject:
        """Give the object its name.

        Raises SizeMismatch, DigestMismatch, StoreFull, StoreReadOnly, StoreError.
        """
        if self._lacking:
            raise SizeMismatch(f"object {self.id}: {len(self._lacking)} of its pieces were not written")
        with disk_errors(f"{self.path}: cannot write"):
            os.ftruncate(self.fd, self.content.size)
            self._check_whole()
        return self._publish(self)

    def close(self) -> None:
        """Remove what is still under the staged name; harmless after `commit` or a second time."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        os.close(fd)
        with contextlib.suppress(OSError):  # the sweeper tries again
            os.unlink(self.path)
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def done(self, piece: Piece) -> None:
        """Take in that *piece* is written and verified. For `PieceWriter`."""
        self._lacking.pop(piece.start, None)

    def _check_whole(self) -> None:
        """Compare the whole file with its digest, if its pieces do not say as much. Raises OSError."""
        content = self.content
        if not content.digest or (len(content.pieces) == 1 and content.pieces[0].digest == content.digest):
            return
        wanted = Digest.parse(content.digest)
        hasher = wanted.hasher()
        at = 0
        while data := os.pread(self.fd, _CHUNK, at):
            hasher.update(data)
            at += len(data)
        wanted.require(Digest.finish(wanted.algorithm, hasher), f"object {self.id}")


Publish = Callable[[StagedObject], StoredObject]
"""Gives verified bytes their final name."""


class PieceWriter:
    """Bytes of one piece, as they come."""

    def __init__(self, target: StagedObject, piece: Piece) -> None:
        self._target = target
        self._piece = piece
        self._hasher = hashlib.sha256()
        self._written = 0

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes. Raises SizeMismatch for too many, StoreFull, StoreError."""
        piece = self._piece
        if self._written + len(data) > piece.size:
            raise SizeMismatch(f"{self._what()}: more than {piece.size} bytes (expected as many)")
        with disk_errors(f"{self._target.path}: cannot write"):
            write_all_at(self._target.fd, data, piece.start + self._written)
        self._hasher.update(data)
        self._written += len(data)

    def finish(self) -> None:
        """Say that these are all. Raises SizeMismatch, DigestMismatch."""
        piece = self._piece
        if self._written != piece.size:
            raise SizeMismatch(f"{self._what()}: {self._written} bytes (expected {piece.size})")
        found = f"sha256:{self._hasher.hexdigest()}"
        if found != piece.digest:
            raise DigestMismatch(f"{self._what()}: the bytes hash to {found} (expected {piece.digest})")
        self._target.done(piece)

    def _what(self) -> str:
        return f"object {self._target.id}, piece at {self._piece.start}"
