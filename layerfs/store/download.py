"""Bytes of a blob on their way in: a private file, verified while it grows, published under its final name.

Decides whether the bytes are the ones that were asked for, and what becomes of them when the caller
leaves. Never decides what to fetch.
"""

import contextlib
import io
import logging
import os
import stat
from collections.abc import Callable, Iterable
from errno import EIO
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from layerfs.errors import ImageError, SizeMismatch, StoreDamaged, StoreError
from layerfs.host.oserrors import disk_errors
from layerfs.oci import Digest
from layerfs.store.blobs import VerifiedBlob, verified
from layerfs.store.disk import FILE_MODE, sync_directory
from layerfs.store.layout import mark_of, staged
from layerfs.store.locks import ByteLock, Locks
from layerfs.store.writer import HashingWriter

_CHUNK: Final = 4 << 20
"""Bytes hashed at once: between two pieces a thread waits for the interpreter, which a daemon keeps busy."""

log = logging.getLogger(__name__)


class StagedDownload:
    """One blob being downloaded, into a private file beside its final name.

    Ends in `commit`, `abort` or `suspend`. Leaving the context otherwise suspends it, so that the
    next attempt goes on from there, except after wrong bytes (ImageError) or when the disk failed
    (StoreError): then the file is removed. Not for two threads at once.
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
        if self._committed or self.offset == 0:
            self.abort()
        self._close()

    def take_over(self) -> None:
        """Go on behind what the file holds already. Raises OSError."""
        self._held = os.fstat(self._raw.fileno()).st_size

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


def stage_download(
    locks: Locks,
    digest: Digest,
    final: Path,
    expected_size: int,
    suspended: Iterable[Path] = (),
    source: str = "",
) -> StagedDownload:
    """Take up the first of *suspended* that nobody holds, or begin a new file. Raises StoreError."""
    for path in suspended:
        download = _resume(locks, digest, path, final, expected_size)
        if download is not None:
            return download
    path = staged(final.parent, digest.name, "downloading", mark_of(source))
    lock = locks.take(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with disk_errors(f"{path}: cannot create"):
            fd = os.open(path, flags, FILE_MODE)
            os.fchmod(fd, FILE_MODE)
    except BaseException:
        lock.release()
        raise
    return StagedDownload(digest, path, final, expected_size, lock, fd)


def discard_suspended(locks: Locks, paths: Iterable[Path]) -> None:
    """Remove those of the staged downloads *paths* that nobody holds."""
    for path in paths:
        lock = locks.name(path)
        if lock.try_acquire():
            with contextlib.suppress(OSError):
                os.unlink(path)
            lock.release()


def find_suspended(directory: Path, digest: Digest, source: str = "") -> list[Path]:
    """Return the staged downloads of *digest* from *source*, largest first; some may be in use.

    What another source sent may be anything: it would spoil a sound download.
    """
    prefix = f"{digest.name}.{mark_of(source)}"
    # Only names are read: the directory may hold 50,000 blobs.
    names = [name for name in os.listdir(directory) if name.startswith(prefix)]
    found = []
    for path in (directory / name for name in names if name.endswith(".downloading")):
        with contextlib.suppress(OSError):
            found.append((os.lstat(path).st_size, path))
    return [path for _, path in sorted(found, reverse=True)]


def _resume(
    locks: Locks, digest: Digest, path: Path, final: Path, expected_size: int
) -> StagedDownload | None:
    lock = locks.name(path)
    if not lock.try_acquire():
        return None
    download = None
    try:
        fd = _open_suspended(path, expected_size)
        download = StagedDownload(digest, path, final, expected_size, lock, fd)
        download.take_over()
    except OSError as exc:  # gone since it was listed, or not a part of this blob: a new file serves as well
        log.info("%s: cannot be resumed: %s", path, exc)
        if download is None:
            lock.release()
        else:
            download.suspend()
        return None
    return download


def _open_suspended(path: Path, expected_size: int) -> int:
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    status = os.fstat(fd)
    partial = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    if partial and not 0 < expected_size < status.st_size:
        return fd
    os.close(fd)
    os.unlink(path)
    raise OSError(EIO, "committed already, longer than the blob, or no regular file")
