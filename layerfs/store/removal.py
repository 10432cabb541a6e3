"""Removal of trees that may hold anything: no permissions, any depth, links that lead outside.

Follows no symlink, leaves no filesystem and needs two descriptors whatever the depth: a subdirectory
is first moved up to the top. Knows nothing of layers.
"""

import contextlib
import os
import stat
from errno import EACCES, EBUSY, EEXIST, ENOTEMPTY, EPERM, EXDEV
from pathlib import Path

_PRIVATE = 0o700


def remove_tree(path: Path) -> None:
    """Remove the directory *path* and all below it; nothing happens if there is none. Raises OSError.

    Two processes may remove the same tree at once; each may then see OSError ENOTEMPTY.
    """
    try:
        top, device = _open_directory(os.fspath(path), None)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(path)
        return
    try:
        _empty(top, top, device)
        while remaining := os.listdir(top):
            for name in remaining:
                _remove_moved(top, name, device)
    finally:
        os.close(top)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)


def _remove_moved(top: int, name: str, device: int) -> None:
    """Empty and remove the directory *name* of *top*; its own subdirectories move to *top*."""
    try:
        fd, found = _open_directory(name, top)
    except FileNotFoundError:
        return
    try:
        if found != device:
            raise OSError(EBUSY, "another filesystem is mounted here", name)
        _empty(fd, top, device)
    finally:
        os.close(fd)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=top)


def _empty(fd: int, top: int, device: int) -> None:
    """Unlink the files of *fd* and move its directories to *top*, unless they are there already."""
    with os.scandir(fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        with contextlib.suppress(FileNotFoundError):
            if not is_directory:
                os.unlink(name, dir_fd=fd)
            elif fd != top:
                _move(name, fd, top, device)


def _move(name: str, source: int, top: int, device: int) -> None:
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    if status.st_dev != device:
        raise OSError(EBUSY, "another filesystem is mounted here", name)
    # Its inode number is unique on this filesystem; the prefix keeps it apart from names of the archive.
    free = f".moved-{status.st_ino}"
    try:
        os.rename(name, free, src_dir_fd=source, dst_dir_fd=top)
    except OSError as exc:
        if exc.errno in (EACCES, EPERM):  # moving a directory rewrites its "..": it must be writable
            os.chmod(name, _PRIVATE, dir_fd=source)
        elif exc.errno in (EEXIST, ENOTEMPTY, EXDEV):
            free = f"{free}-{os.urandom(8).hex()}"
        else:
            raise
        os.rename(name, free, src_dir_fd=source, dst_dir_fd=top)


def _open_directory(name: str, parent: int | None) -> tuple[int, int]:
    """Open a directory of which everything may be removed; return descriptor and device."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=parent)
    except PermissionError:
        _allow(name, parent)
        fd = os.open(name, flags, dir_fd=parent)
    status = os.fstat(fd)
    if status.st_mode & _PRIVATE != _PRIVATE:
        with contextlib.suppress(OSError):  # then the unlink below says what is wrong
            os.fchmod(fd, _PRIVATE)
    return fd, status.st_dev


def _allow(name: str, parent: int | None) -> None:
    # chmod(2) follows links; nobody but this process and its equals can put one here.
    if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        os.chmod(name, _PRIVATE, dir_fd=parent)
