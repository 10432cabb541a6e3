"""Who works on what, across threads and processes: one locked byte for each digest or staged name.

Open-file-description locks (fcntl(2), F_OFD_SETLK) on single bytes of one empty file. They vanish
with the process, whatever kills it, so there is nothing to clean and nothing to go stale. Every holder
opens the file anew: then two threads of one process exclude each other as two processes do.
Offsets come from hashes; two names that share one (1 in 2^60) would wait for each other, no worse.
"""

import contextlib
import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Iterator
from errno import EACCES, EAGAIN, EINVAL, ENOLCK, ENOSYS, EOPNOTSUPP, EROFS
from pathlib import Path
from typing import Final, Self

from layerfs.errors import StoreError, StoreReadOnly
from layerfs.host.oserrors import disk_errors, store_error
from layerfs.oci import Digest

POLL_SECONDS: Final = 0.1
"""How long a waiting holder sleeps between two attempts."""

MOMENTS_SECONDS: Final = 60.0
"""How long to wait for a byte that is held for moments."""
WORK_SECONDS: Final = 3 * 3600.0
"""How long to wait for whoever downloads and extracts a layer."""

_FIRST_PAUSE: Final = 0.001

_FLOCK: Final = "hhqqi0q"
"""struct flock: type, whence, start, length, pid (must be 0), padding."""


_NO_LOCKS: Final = frozenset({ENOLCK, EOPNOTSUPP, ENOSYS, EINVAL})
"""What a filesystem says that has no locks: NFS without a lock service, mostly."""


def _offset(start: bytes, purpose: int) -> int:
    # 61 bits of hash and one of purpose: off_t is signed.
    return (int.from_bytes(start[:8], "big") >> 3) << 1 | purpose


class ByteLock:
    """One byte of the lock file: free or held by this object, or by all that share it. Not reentrant."""

    def __init__(self, path: Path, offset: int, *, shared: bool = False) -> None:
        self._path = path
        self._offset = offset
        self._kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
        self._fd = -1

    @property
    def held(self) -> bool:
        """Whether this object holds the byte."""
        return self._fd >= 0

    def fileno(self) -> int:
        """Return the descriptor that holds the byte: a process with a copy of it holds the byte as well."""
        return self._fd

    def try_acquire(self) -> bool:
        """Take the byte unless someone has it; True if it is held now. Raises StoreReadOnly, StoreError."""
        if self.held:
            raise RuntimeError(f"{self._path}: byte {self._offset} is held by this object already")
        fd = self._open()
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, self._request(self._kind))
        except OSError as exc:
            os.close(fd)
            if exc.errno in (EAGAIN, EACCES):
                return False
            if exc.errno in _NO_LOCKS:
                raise StoreError(
                    f"{self._path}: this filesystem has no locks, as some homes on NFS: {exc.strerror} "
                    "(expected one that has; choose a directory of your own on a local disk with --store)"
                ) from exc
            raise store_error(exc, f"{self._path}: cannot lock") from exc
        self._fd = fd
        return True

    def acquire(self, seconds: float) -> None:
        """Wait for the byte, *seconds* at most. Raises StoreReadOnly, StoreError, also when they are over.

        Not in the kernel, whose wait has no end and keeps a process from ending.
        """
        if not self.try_for(seconds):
            raise self.overdue(seconds)

    def try_for(self, seconds: float) -> bool:
        """Do as `try_acquire`, and go on for *seconds* while someone has the byte."""
        deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE
        while not self.try_acquire():
            if time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS)
        return True

    def overdue(self, seconds: float) -> StoreError:
        """Return the error of who has waited for so long."""
        return StoreError(
            f"{self._path}: held by another process for {seconds:.0f} s (expected less); "
            f"fuser -v {self._path} names it"
        )

    def release(self) -> None:
        """Give the byte back; harmless if it is not held."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            # Explicitly: between fork and exec a child may hold a copy of the descriptor.
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, self._request(fcntl.F_UNLCK))
            os.close(fd)

    def _open(self) -> int:
        try:
            # Who shares a byte only reads, so that the filesystem can be made read-only meanwhile.
            return _open(self._path, os.O_RDONLY if self._kind == fcntl.F_RDLCK else os.O_RDWR)
        except OSError as exc:
            if exc.errno in (EROFS, EACCES):
                raise StoreReadOnly(f"{self._path}: the store may only be read: {exc.strerror}") from exc
            raise store_error(exc, str(self._path)) from exc

    def _request(self, kind: int) -> bytes:
        return struct.pack(_FLOCK, kind, os.SEEK_SET, self._offset, 1, 0)


def _open(path: Path, access: int = os.O_RDWR) -> int:
    # 0600: whoever could read the file could lock it, and keep all others waiting.
    return os.open(path, access | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


class DigestLock(ByteLock):
    """The right to work on a digest: download it, extract it, remove it."""

    def __enter__(self) -> Self:
        self.acquire(WORK_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class PublicationLock(ByteLock):
    """Held for the moments in which final names appear or disappear, by whoever does that."""

    def __enter__(self) -> Self:
        self.acquire(MOMENTS_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Locks:
    """The lock file of a store."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def work(self, digest: Digest, source: str = "") -> DigestLock:
        """Return the byte of whoever works on *digest*, with bytes that *source* gives.

        A source that is slow, silent or lying keeps nobody from having the same digest of another one.
        """
        start = (
            hashlib.sha256(f"{source} {digest}".encode()).digest() if source else bytes.fromhex(digest.hex)
        )
        return DigestLock(self._path, _offset(start, 0))

    def publication(self, digest: Digest) -> PublicationLock:
        """Return the byte of whoever publishes or removes *digest* right now."""
        return PublicationLock(self._path, _offset(bytes.fromhex(digest.hex), 1))

    def presence(self, digest: Digest) -> ByteLock:
        """Return the byte that all share who work with *digest*, whatever their source of bytes."""
        return ByteLock(self._path, self._presence(digest), shared=True)

    def absence(self, digest: Digest) -> ByteLock:
        """Return the byte of whoever removes *digest*: not to be had while somebody is present."""
        return ByteLock(self._path, self._presence(digest))

    def removal(self) -> PublicationLock:
        """Return the byte of whoever looks who needs things and sets them aside: one at a time."""
        return PublicationLock(self._path, _offset(hashlib.sha256(b"removal").digest(), 1))

    def serving(self) -> ByteLock:
        """Return the byte that all share who serve the store."""
        return ByteLock(self._path, _offset(hashlib.sha256(b"serving").digest(), 0), shared=True)

    def is_served(self) -> bool:
        """Say whether somebody serves the store. Raises StoreReadOnly, StoreError."""
        return _is_held(ByteLock(self._path, _offset(hashlib.sha256(b"serving").digest(), 0)))

    def starting_bell(self) -> ByteLock:
        """Return the byte of whoever looks for a mount that lazy overlays can ask, and else makes one."""
        return ByteLock(self._path, _offset(hashlib.sha256(b"starting bell").digest(), 0))

    def needing_bell(self) -> ByteLock:
        """Return the byte that all share who are about to mount a lazy overlay."""
        return ByteLock(self._path, _offset(hashlib.sha256(b"bell").digest(), 0), shared=True)

    def ending_bell(self) -> ByteLock:
        """Return the byte of a mount for such overlays that ends: not to be had while somebody needs one."""
        return ByteLock(self._path, _offset(hashlib.sha256(b"bell").digest(), 0))

    @staticmethod
    def _presence(digest: Digest) -> int:
        return _offset(hashlib.sha256(f"presence {digest}".encode()).digest(), 0)

    def name(self, path: Path) -> ByteLock:
        """Return the byte of a staged file or tree: its owner takes it first, then makes the file."""
        return ByteLock(self._path, _offset(hashlib.sha256(os.fsencode(path.name)).digest(), 0))

    def upper(self, directory: Path) -> ByteLock:
        """Return the byte of whoever mounts an overlay with a user's upper *directory*, or asks about one.

        Raises OSError if it is not there.
        """
        status = directory.stat()
        identity = b"upper %d %d" % (status.st_dev, status.st_ino)
        return ByteLock(self._path, _offset(hashlib.sha256(identity).digest(), 0))

    def is_held(self, path: Path) -> bool:
        """Say whether the staged *path* is in somebody's hands. Raises StoreReadOnly, StoreError."""
        return _is_held(self.name(path))

    def take(self, path: Path) -> ByteLock:
        """Hold the byte of the staged name *path*, before anything of that name exists. Raises StoreError."""
        lock = self.name(path)
        if not lock.try_acquire():  # a random name: only a hash collision or an attack gets here
            raise StoreError(
                f"{path}: another process has locked this name in {self._path} (expected nobody: it is "
                f"random); fuser -v {self._path} names it"
            )
        return lock

    @contextlib.contextmanager
    def holding(self, path: Path) -> Iterator[None]:
        """Hold the byte of the staged name *path* for the block. Raises StoreError."""
        lock = self.take(path)
        try:
            yield
        finally:
            lock.release()

    def create(self) -> None:
        """Make the lock file, and try whether it can be locked. Raises StoreError."""
        with disk_errors(str(self._path)):
            os.close(_open(self._path))
        probe = self.name(self._path)
        probe.try_acquire()
        probe.release()


def _is_held(lock: ByteLock) -> bool:
    if not lock.try_acquire():
        return True
    lock.release()
    return False
