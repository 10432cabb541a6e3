"""Ranges of files on this disk, read without trust in what they are."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from layerfs.errors import InvalidArchive
from layerfs.host.oserrors import source_error


class FilePart(msgspec.Struct, frozen=True):
    """Some bytes of a file; unverified."""

    path: Path
    offset: int
    size: int
    is_file: bool
    """Whether they are the whole file, so that it can be linked instead of copied."""

    def read(self, limit: int) -> bytes:
        """Return all bytes. Raises InvalidArchive for more than *limit*, and what `opened` raises."""
        if self.size > limit:
            raise InvalidArchive(f"{self.path}: a document of {self.size} bytes (expected at most {limit})")
        with opened(self.path) as fd:
            return read_at(fd, self.offset, self.size, self.path)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a regular file for the block. Raises NotFound, Denied, InvalidArchive, StoreError."""
    fd = open_file(path)
    try:
        yield fd
    finally:
        os.close(fd)


def open_file(path: Path) -> int:
    """Return a descriptor of a regular file. Raises NotFound, Denied, InvalidArchive, StoreError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hold us up
    except OSError as exc:
        raise source_error(exc, path) from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidArchive(f"{path}: not a regular file")
    return fd


def whole_file(path: Path) -> FilePart:
    """Return all of a file as a piece. Raises NotFound, Denied, InvalidArchive, StoreError."""
    with opened(path) as fd:
        return FilePart(path, 0, os.fstat(fd).st_size, is_file=True)


def read_at(fd: int, offset: int, size: int, path: Path) -> bytes:
    """Return *size* bytes. Raises InvalidArchive if the file ends before, StoreError."""
    parts = []
    try:
        while size > 0 and (part := os.pread(fd, size, offset)):
            parts.append(part)
            offset += len(part)
            size -= len(part)
    except OSError as exc:
        raise source_error(exc, path) from exc
    if size > 0:
        raise InvalidArchive(f"{path}: ends at byte {offset} (expected {size} more)")
    return b"".join(parts)
