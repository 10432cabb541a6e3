"""The files of one published layer directory, by path below one directory fd; links are never followed.

Metadata is read in the event loop: a call on a published tree costs a few microseconds, and to hand it to a
thread would cost fifty times that (docs/performance.md). Must never decide what a file means.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from errno import EMFILE, ENAMETOOLONG, ENOTDIR
from itertools import islice
from typing import Final
from weakref import finalize

from layerfs.layer.kinds import Kind, kind_of
from layerfs.needs import Need
from layerfs.store.xattrs import read_all
from layerfs.view.nodes import FileContent

_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_FAR_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_NEAR: Final = 3500
"""Bytes of a path that fit into a system call with the store's own path before them (PATH_MAX is 4096)."""

_MAX_FAR: Final = 64
"""Descriptors that one layer may cost; what hostile layers have beyond is named and not opened."""

_ABSENT: Final = frozenset({ENAMETOOLONG, ENOTDIR})
"""No layer holds a name that its own filesystem cannot."""

_ENCODING: Final = sys.getfilesystemencoding()
_ERRORS: Final = sys.getfilesystemencodeerrors()
"""As in os.fsencode, which costs as much as all else of an entry."""


class OpenDirectory:
    """An open directory in which layer directories lie: one fd for all of them, as there may be thousands."""

    def __init__(self, path: bytes) -> None:
        self.path = path
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        finalize(self, os.close, self.fd)

    def changed_ns(self) -> int:
        """Return when a name in it came or went last. Raises OSError."""
        return os.fstat(self.fd).st_mtime_ns


class DiskSource:
    """One layer directory, a `layerfs.view.source.LayerSource`."""

    def __init__(self, directory: OpenDirectory, name: bytes, called: bytes | None = None) -> None:
        """Read the layer directory *name*; *called* tells its files from those shown elsewhere."""
        self.directory = directory
        self.name = name if called is None else called
        self._below = name + b"/"
        self._far: dict[bytes, int] = {}

    def lstat(self, path: bytes) -> os.stat_result | None:
        """Return what is at *path*, None if nothing is. Raises OSError."""
        try:
            if len(path) <= _NEAR:
                return os.lstat(self._below + path, dir_fd=self.directory.fd)
            fd, rest = self._reach(path)
            return os.lstat(rest, dir_fd=fd)
        except FileNotFoundError:
            return None
        except OSError as exc:
            if exc.errno in _ABSENT:
                return None
            raise

    def kinds(self, path: bytes) -> Iterator[tuple[bytes, Kind | None]]:
        """Yield the names in the directory *path*, as `kind_of` sees what they name. Raises OSError.

        In the order of the disk, as they are asked for: there may be millions.
        """
        with self._opened(path) as fd, os.scandir(fd) as found:
            for entry in found:
                is_file = entry.is_file(follow_symlinks=False)
                yield entry.name.encode(_ENCODING, _ERRORS), Kind.OTHER if is_file else _kind_of(entry)

    def statuses(self, path: bytes, names: Sequence[bytes]) -> list[os.stat_result | None]:
        """Return what is at each of *names* in the directory *path*, None where nothing is. Raises OSError.

        Quicker than `lstat` of each: the way to the directory is walked once.
        """
        found: list[os.stat_result | None] = []
        with self._opened(path) as fd:
            for name in names:
                try:
                    found.append(os.lstat(name, dir_fd=fd))
                except FileNotFoundError:
                    found.append(None)
        return found

    def scan(self, path: bytes) -> list[tuple[bytes, os.stat_result]]:
        """Return what the directory *path* holds, in the order of the disk. Raises OSError."""
        with self._opened(path) as fd, os.scandir(fd) as found:
            return [(os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in found]

    def scan_small(self, path: bytes, most: int) -> list[tuple[bytes, os.stat_result]] | None:
        """Return what the directory *path* holds, None if it is more than *most* entries. Raises OSError.

        Most directories are small, and the way to them is then walked once in all. None, too, if an entry
        cannot be looked at: whoever asks for it alone is told why.
        """
        with self._opened(path) as fd:
            with os.scandir(fd) as found:  # reads no further than it must
                names = [entry.name for entry in islice(found, most + 1)]
            if len(names) > most:
                return None
            try:
                return [(name.encode(_ENCODING, _ERRORS), os.lstat(name, dir_fd=fd)) for name in names]
            except OSError:
                return None

    def readlink(self, path: bytes) -> bytes:
        """Return the target of the link *path*. Raises OSError."""
        fd, rest = self._reach(path)
        return os.readlink(rest, dir_fd=fd)

    def content(self, path: bytes, size: int) -> FileContent | Need:
        """Return how to open the file *path*. Raises OSError."""
        fd, rest = self._reach(path)
        return FileContent(fd, rest, size)

    def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        """Return the attributes of *path* on disk. Raises OSError."""
        return read_all(self.full_path(path))

    def full_path(self, path: bytes) -> bytes:
        """Return *path* for a call that takes no descriptor of a directory. Raises OSError."""
        if len(path) <= _NEAR:
            return b"%s/%s%s" % (self.directory.path, self._below, path)
        return b"/proc/self/fd/%d/%s" % self._reach(path)

    @contextmanager
    def _opened(self, path: bytes) -> Iterator[int]:
        fd, rest = self._reach(path)
        opened = os.open(rest, _DIRECTORY_FLAGS, dir_fd=fd)
        try:
            yield opened
        finally:
            os.close(opened)

    def _reach(self, path: bytes) -> tuple[int, bytes]:
        """Return a directory fd, open as long as this tree, and the path from there. Raises OSError.

        A path that is longer than a system call takes is cut, at the same places for all that lie below.
        """
        fd, rest, done = self.directory.fd, self._below + path, 0
        while len(path) - done > _NEAR:
            cut = path.rfind(b"/", done, done + _NEAR)
            if cut < 0:
                raise OSError(ENAMETOOLONG, "no file can have this name")
            fd = self._far_directory(path[:cut], fd, rest[: len(rest) - len(path) + cut])
            rest, done = path[cut + 1 :], cut + 1
        return fd, rest

    def _far_directory(self, path: bytes, fd: int, rest: bytes) -> int:
        opened = self._far.get(path)
        if opened is None:
            if len(self._far) >= _MAX_FAR:
                raise OSError(EMFILE, f"more than {_MAX_FAR} directories as deep as this one")
            if not self._far:
                finalize(self, _close_all, self._far)
            opened = self._far[path] = os.open(rest, _FAR_FLAGS, dir_fd=fd)
        return opened


def _close_all(fds: dict[bytes, int]) -> None:
    for fd in fds.values():
        os.close(fd)


def _kind_of(entry: os.DirEntry[str]) -> Kind | None:
    """Return the kind of *entry*, no regular file; only what may be a device costs a look at the disk."""
    if entry.is_dir(follow_symlinks=False):
        return Kind.DIRECTORY
    if entry.is_symlink():
        return Kind.OTHER
    status = entry.stat(follow_symlinks=False)
    return kind_of(status.st_mode, status.st_rdev)
