"""Copies of entries of one layer, with all that the layer has of them: for covers that must hold content.

Blocks share their bytes where the filesystem can do that (copy_file_range(2)). Writes to new names only.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from errno import EIO, ENODATA, ENXIO, EOPNOTSUPP, EPERM

from layerfs.host.descriptors import closing_fd
from layerfs.layer.overlayfs import XATTR_PREFIXES
from layerfs.store.xattrs import xattr

_SOURCE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_TARGET = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 30


def copy_entries(pairs: Iterable[tuple[bytes, bytes]]) -> None:
    """Copy each first path, no directory, to the second; hard links among them stay links. Raises OSError."""
    links: dict[tuple[int, int], bytes] = {}
    for source, target in pairs:
        status = os.lstat(source)
        key = (status.st_dev, status.st_ino)
        if key in links:
            os.link(links[key], target, follow_symlinks=False)
            continue
        if status.st_nlink > 1:
            links[key] = target
        _copy_entry(source, target, status)


def copy_attributes(source: int, target: int) -> None:
    """Give *target*, a descriptor, owner, mode, xattrs and times of *source*; all but overlay's own xattrs.

    What an ordinary user may not give stays away. Raises OSError.
    """
    status = os.fstat(source)
    mine = os.fstat(target)
    if (status.st_uid, status.st_gid) != (mine.st_uid, mine.st_gid):
        with suppress(PermissionError):  # an ordinary user's layers are all his own, groups aside
            os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in xattr.listxattr(source):
        if not os.fsencode(name).startswith(XATTR_PREFIXES):
            _copy_xattr(source, target, name)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_entry(source: bytes, target: bytes, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        _copy_file(source, target, status.st_size)
        return
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    else:
        os.mknod(target, status.st_mode, status.st_rdev)
    with suppress(PermissionError):
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _copy_file(source: bytes, target: bytes, size: int) -> None:
    with closing_fd(os.open(source, _SOURCE)) as found, closing_fd(os.open(target, _TARGET, 0o600)) as made:
        _copy_content(found, made, size)
        copy_attributes(found, made)


def _copy_content(source: int, target: int, size: int) -> None:
    """Copy the data and leave the holes: a file may be sparse."""
    os.ftruncate(target, size)
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == ENXIO:  # nothing but a hole to the end
                return
            raise
        position = os.lseek(source, start, os.SEEK_HOLE)
        while start < position:
            copied = os.copy_file_range(source, target, min(_CHUNK, position - start), start, start)
            if not copied:
                raise OSError(EIO, "shorter than its layer's tree says")
            start += copied


def _copy_xattr(source: int, target: int, name: str) -> None:
    try:
        xattr.setxattr(target, name, xattr.getxattr(source, name))
    except OSError as exc:  # labels of a security module that this process may not give
        if exc.errno not in (EPERM, EOPNOTSUPP, ENODATA):
            raise
