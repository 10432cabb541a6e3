"""Downloads that were begun: found again by their staged names, taken up, or removed.

Decides which of them a new attempt goes on with. What they hold `layerfs.store.download` knows.
"""

import contextlib
import logging
import os
import stat
from collections.abc import Iterable
from errno import EIO
from pathlib import Path

from layerfs.errors import StoreError
from layerfs.host.oserrors import disk_errors
from layerfs.oci import Digest
from layerfs.store.disk import FILE_MODE
from layerfs.store.download import StagedDownload, pieces_behind
from layerfs.store.layout import mark_of, staged
from layerfs.store.locks import Locks

log = logging.getLogger(__name__)


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
    except (
        OSError,
        StoreError,
    ) as exc:  # gone since it was listed, or not a part of this blob: a new file serves as well
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
    if partial and (not 0 < expected_size < status.st_size or pieces_behind(fd, expected_size)):
        return fd
    os.close(fd)
    os.unlink(path)
    raise OSError(EIO, "committed already, longer than the blob, or no regular file")
