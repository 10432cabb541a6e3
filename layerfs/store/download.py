"""Bytes of a blob on their way in: a private file, verified while it grows, published under its final name.

Decides whether the bytes are the ones that were asked for, and what becomes of them when the caller
leaves. Never decides what to fetch.
"""

import contextlib
import io
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from layerfs.errors import ImageError, SizeMismatch, StoreDamaged, StoreError
from layerfs.host import boot_id
from layerfs.host.files import write_all_at
from layerfs.host.oserrors import disk_errors
from layerfs.oci import Digest
from layerfs.store.blobs import VerifiedBlob, verified
from layerfs.store.disk import sync_directory
from layerfs.store.locks import ByteLock
from layerfs.store.pieces import Pieces, most_notes
from layerfs.store.writer import HashingWriter

_CHUNK: Final = 4 << 20
"""Bytes hashed at once: between two pieces a thread waits for the interpreter, which a daemon keeps busy."""

log = logging.getLogger(__name__)


class StagedDownload:
    """One blob being downloaded, into a private file beside its final name.

    Ends in `commit`, `abort` or `suspend`. Leaving the context otherwise suspends it, so that the
    next attempt goes on from there, except after wrong bytes (ImageError) or when the disk failed
    (StoreError): then the file is removed. Grows at its end, or is filled in pieces (`scatter`), whose notes
    are cut off before anything is committed. Not for two threads at once.
    """

    def __init__(
        self, digest: Digest, staged_path: Path, final_path: Path, expected_size: int, lock: ByteLock, fd: int
    ) -> None:
        self.digest = digest
        self.staged_path = staged_path
        self.final_path = final_path
        self._expected = expected_size if expected_size > 0 else None
        self._lock = lock
        self._staged = True
        self._committed = False
        self._entered = False
        self._raw = io.FileIO(fd, "r+")
        self._held = 0
        self.pieces: Pieces | None = None
        """Which pieces are here, of a file that is written in any order; None for one that grows."""
        self._writer: HashingWriter[io.FileIO] = HashingWriter(
            self._raw, digest.algorithm, limit=self._expected, name=str(digest)
        )

    @property
    def offset(self) -> int:
        """Bytes that the staged file holds, an earlier attempt's included; the next chunk goes there."""
        return max(self._held, self._writer.bytes_written)

    @property
    def file(self) -> HashingWriter[io.FileIO]:
        """Where chunks are written; what the file holds already is read and hashed first.

        Raises StoreError.
        """
        self._hash_held(lambda: None)
        return self._writer

    def _hash_held(self, between: Callable[[], object]) -> None:
        if self._held > self._writer.bytes_written:
            buffer = memoryview(bytearray(_CHUNK))
            with disk_errors(f"{self.staged_path}: cannot read"):
                while (missing := self._held - self._writer.bytes_written) > 0:
                    count = self._raw.readinto(buffer[:missing])
                    if not count:
                        raise StoreDamaged(f"{self.staged_path}: ends early (expected {self._held} bytes)")
                    self._writer.already(buffer[:count])
                    between()

    @property
    def descriptors(self) -> tuple[int, int]:
        """Descriptors of the file and of its lock, for another process that writes at `offset`."""
        return self._raw.fileno(), self._lock.fileno()

    def grown(self, size: int) -> None:
        """Say that the file holds *size* bytes now, whoever wrote them."""
        self._held = size

    def scatter(self, piece: int) -> Pieces:
        """Let pieces of *piece* bytes be written in any order from now on; `offset` is where the front is.

        For a blob of known size. Blocking. Raises StoreFull, StoreError.
        """
        assert self._expected is not None
        if self.pieces is None:
            pieces = Pieces.of(self._expected, piece)
            pieces.here.update(pieces.complete(0, self._held))
            with disk_errors(f"{self.staged_path}: cannot write"):
                write_all_at(self._raw.fileno(), pieces.notes(boot_id()), self._expected)
            self.pieces = pieces
        return self.pieces

    def keep(self, numbers: Iterable[int]) -> None:
        """Note that all bytes of these pieces were written. Blocking. Raises StoreFull, StoreError."""
        assert self.pieces is not None
        for number in numbers:
            if number not in self.pieces.here:
                with disk_errors(f"{self.staged_path}: cannot write"):
                    write_all_at(self._raw.fileno(), *self.pieces.note_of(number))
                self.pieces.here.add(number)
        self._held = self.pieces.front(self._held)

    def settle(self) -> None:
        """Note what was written up to `offset`, which moves over the pieces that are here behind it.

        If nothing is here behind that, the file ends there and grows at its end from now on. Blocking. Raises
        StoreFull, StoreError.
        """
        if self.pieces is not None:
            self.keep(self.pieces.complete(0, self._held))
            if self.pieces.is_straight(self._held):
                with disk_errors(f"{self.staged_path}: cannot be cut"):
                    os.ftruncate(self._raw.fileno(), self._held)
                self.pieces = None

    def write(self, chunk: bytes | bytearray | memoryview) -> int:
        """Append *chunk*. Raises SizeMismatch on the first excess byte, StoreFull, StoreError."""
        with disk_errors(f"{self.staged_path}: cannot write"):
            return self.file.write(chunk)

    def commit(self, between: Callable[[], object] = lambda: None) -> VerifiedBlob:
        """Check size and digest, make the bytes durable and give them their final name.

        What others wrote is read and hashed first, in pieces; *between* two of them the caller may raise.
        Within the context the staged name stays until the context is left, so that an extractor which was
        told that name and has not opened it yet still finds the bytes.
        Raises SizeMismatch or DigestMismatch after removing the file; StoreDamaged if the staged file
        vanished; StoreFull or StoreError.
        """
        try:
            self._hash_held(between)
            _, hex_, size = self._writer.finalize()
        except StoreError:
            self.abort()
            raise
        return self.commit_as(Digest(self.digest.algorithm, hex_), size)

    def commit_as(self, found: Digest, size: int) -> VerifiedBlob:
        """Commit bytes that another process of layerfs read from the staged file: *size* of them, *found*.

        Raises as `commit` does.
        """
        try:
            self._check(found, size)
            self.sync()
            with disk_errors(f"{self.final_path}: cannot publish"):
                self._publish()
                sync_directory(self.final_path.parent)
        except (ImageError, StoreError):
            self.abort()
            raise
        if not self._entered:
            self.abort()
        return verified(self.digest, self.final_path, size)

    def sync(self) -> None:
        """Make the bytes durable, but not yet their name. Raises StoreFull, StoreError."""
        with disk_errors(f"{self.staged_path}: cannot write"):
            os.fsync(self._raw.fileno())

    def abort(self) -> None:
        """Remove the staged file; what was committed stays. Harmless a second time."""
        if self._staged:
            with contextlib.suppress(OSError):
                os.unlink(self.staged_path)
        self._close()

    def suspend(self) -> None:
        """Leave what was downloaded for the next attempt; harmless after commit or abort."""
        if self._committed or (self.offset == 0 and not (self.pieces and self.pieces.here)):
            self.abort()
        self._close()

    def take_over(self) -> None:
        """Go on behind what the file holds already. Raises OSError, StoreError."""
        self.pieces, self._held = None, os.fstat(self._raw.fileno()).st_size
        if self._expected is not None and self._held > self._expected:
            self.pieces = pieces_behind(self._raw.fileno(), self._expected)
            self._held = self.pieces.front(0) if self.pieces else 0

    def _publish(self) -> None:
        # A second name, not a rename: the first one must live on. One name of a finished blob is never
        # written to again: `_open_suspended` refuses a file with two.
        try:
            os.link(self.staged_path, self.final_path)
        except OSError:  # published by another meanwhile, or no hard links here
            os.rename(self.staged_path, self.final_path)
        self._committed = True

    def _check(self, found: Digest, size: int) -> None:
        if not self._is_ours():
            raise StoreDamaged(f"{self.staged_path}: the staged file vanished (someone else removed it)")
        if self._expected is not None and size != self._expected:
            raise SizeMismatch(f"{self.digest}: {size} bytes (expected {self._expected})")
        held = os.fstat(self._raw.fileno()).st_size
        if held != size:
            raise SizeMismatch(f"{self.digest}: {size} bytes were hashed (expected {held}, all of the file)")
        self.digest.require(found, str(self.digest))

    def _is_ours(self) -> bool:
        try:
            return os.path.samestat(os.lstat(self.staged_path), os.fstat(self._raw.fileno()))
        except OSError:
            return False

    def _close(self) -> None:
        self._staged = False
        self._raw.close()
        self._lock.release()

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(exc, ImageError | StoreError):
            self.abort()
        else:
            self.suspend()


def pieces_behind(fd: int, size: int) -> Pieces | None:
    """Read the notes behind a blob of *size* bytes. Raises OSError, StoreError."""
    return Pieces.parse(os.pread(fd, most_notes(), size), size, boot_id())
