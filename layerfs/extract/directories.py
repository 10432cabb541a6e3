"""Directories of the tree that is being written: open, by relative path, no link followed.

Moves nothing but directories. Every path is walked one component at a time with O_NOFOLLOW, from a descriptor
of the layer's root, so that no symlink of the archive can lead anywhere. Must know no archive format. Called
by `placing`, `latelinks` and `overlayform`.

A directory's mtime changes with each entry made in it, a setgid bit and a default ACL are inherited by what
is made in it. So all three are *late*: taken off while a directory is open here, put on when it is closed.
What the disk holds of a closed directory is final, and is where it comes from when the directory is opened
again: nothing has to be remembered for directories that are closed, however many there are.
"""

import os
import resource
from collections import OrderedDict
from errno import EEXIST, ELOOP, ENOENT, ENOTDIR
from stat import S_IMODE, S_ISDIR, S_ISGID, S_ISLNK
from typing import Final

from layerfs.errors import InvalidArchive, PathEscape
from layerfs.extract.remembered import Remembered
from layerfs.layer.metadata import ACL_DEFAULT, keeps_xattr
from layerfs.layer.paths import join, shown, split

_OPEN_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CLOSED: Final = -1
"""In place of a descriptor; callers on the hot path ask for a negative one."""
OPEN_MAX: Final = 800
"""Directories open at a time, where the process may have so many files."""
_OTHERS: Final = 64
"""Descriptors left for all else: pipes, and the file that is being written."""


def open_max(max_depth: int) -> int:
    """Return how many directories may be open, so that a tree of *max_depth* can still be removed.

    Removing one keeps a descriptor a level.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(OPEN_MAX, files - max_depth - _OTHERS))


class Directory:
    """One open directory."""

    __slots__ = ("fd", "late_acl", "late_mode", "mtime_ns", "path")

    def __init__(self, fd: int, path: bytes, mtime_ns: int) -> None:
        self.fd = fd
        self.path = path
        self.mtime_ns = mtime_ns
        self.late_mode: int | None = None
        self.late_acl: bytes | None = None

    @property
    def is_open(self) -> bool:
        """Whether the descriptor may be used."""
        return self.fd != _CLOSED

    def set_mode(self, mode: int) -> None:
        """Set the mode, the setgid bit late."""
        self.late_mode = mode if mode & S_ISGID else None
        os.chmod(self.fd, mode & ~S_ISGID)

    def hold_back_acl(self) -> None:
        """Take off the default ACL, if there is one, until the directory is closed."""
        if ACL_DEFAULT.decode() in os.listxattr(self.fd):
            self.late_acl = os.getxattr(self.fd, ACL_DEFAULT)
            os.removexattr(self.fd, ACL_DEFAULT)

    def reset(self) -> None:
        """Take off all xattrs that an earlier entry put on."""
        self.late_acl = None
        for name in os.listxattr(self.fd):
            if keeps_xattr(os.fsencode(name)):
                os.removexattr(self.fd, name)

    def close(self) -> None:
        """Put on what is late, and close."""
        if self.late_acl is not None:
            os.setxattr(self.fd, ACL_DEFAULT, self.late_acl)
        if self.late_mode is not None:
            os.chmod(self.fd, self.late_mode)
        os.utime(self.fd, ns=(self.mtime_ns, self.mtime_ns))
        self.drop()

    def drop(self) -> None:
        """Close without a last touch: the directory is gone, or the whole tree will be."""
        os.close(self.fd)
        self.fd = _CLOSED


class Directories:
    """The open directories of one tree, the least recently used closed first."""

    def __init__(self, root: Directory, implied_mode: int, remembered: Remembered, most: int) -> None:
        """Keep at most *most* directories open beside *root*."""
        self.root = root
        self.implied: set[bytes] = {b""}
        """Paths of directories without an entry so far."""
        self.acls_seen = False
        """Whether a directory of this tree may have a default ACL: asking each one costs a call."""
        self._implied_mode = implied_mode
        self._remembered = remembered
        self._most = most
        self._open: OrderedDict[bytes, Directory] = OrderedDict()

    def get(self, path: bytes) -> Directory:
        """Return the directory *path*, made with all parents where it is missing.

        Raises PathEscape if a symlink stands on the way, InvalidArchive if another file does, OSError.
        """
        found = self._find(path, make=True)
        assert found is not None
        return found

    def find(self, path: bytes) -> Directory | None:
        """Return the directory *path*; None if it does not exist. Raises like `get`."""
        return self._find(path, make=False)

    def make(self, parent: Directory, leaf: bytes, mode: int) -> tuple[Directory, bool]:
        """Make the directory *leaf* with permission bits *mode* in *parent*; say whether it is new.

        What stands there and is no directory must be gone. Raises FileExistsError for it, and like `get`.
        """
        path = join(parent.path, leaf)
        try:
            os.mkdir(leaf, mode, dir_fd=parent.fd)
        except FileExistsError:
            if not S_ISDIR(os.stat(leaf, dir_fd=parent.fd, follow_symlinks=False).st_mode):
                raise
            return self.get(path), False
        directory = Directory(os.open(leaf, _OPEN_FLAGS, dir_fd=parent.fd), path, 0)
        self._keep(directory)
        return directory, True

    def forget(self, path: bytes) -> None:
        """Close the directory *path*, which is gone; nothing if it was none."""
        known = self._open.pop(path, None)
        if known is not None:
            known.drop()
        self.implied.discard(path)

    def close(self) -> None:
        """Close all, the root last, with everything that is late. Raises OSError."""
        while self._open:
            self._open.popitem()[1].close()
        self.root.close()

    def drop(self) -> None:
        """Close all as they are, after a failure."""
        while self._open:
            self._open.popitem()[1].drop()
        if self.root.is_open:
            self.root.drop()

    def _find(self, path: bytes, *, make: bool) -> Directory | None:
        if not path:
            return self.root
        found = self._open.get(path)
        if found is not None:
            self._open.move_to_end(path)
            return found
        missing = []
        directory = self.root
        while path:
            known = self._open.get(path)
            if known is not None:
                self._open.move_to_end(path)
                directory = known
                break
            path, leaf = split(path)
            missing.append(leaf)
        for leaf in reversed(missing):
            child = self._child(directory, leaf, make=make)
            if child is None:
                return None
            directory = child
        return directory

    def _child(self, parent: Directory, leaf: bytes, *, make: bool) -> Directory | None:
        path = join(parent.path, leaf)
        try:
            fd = os.open(leaf, _OPEN_FLAGS, dir_fd=parent.fd)
        except OSError as exc:
            if exc.errno in (ENOTDIR, ELOOP):
                raise self._refusal(parent, leaf) from None
            if exc.errno != ENOENT:
                raise
            return self._imply(parent, leaf) if make else None
        found = os.fstat(fd)
        child = Directory(fd, path, found.st_mtime_ns)
        self._keep(child)
        if found.st_mode & S_ISGID:
            child.set_mode(S_IMODE(found.st_mode))
        if self.acls_seen:
            child.hold_back_acl()
        return child

    def _imply(self, parent: Directory, leaf: bytes) -> Directory:
        path = join(parent.path, leaf)
        self._remembered.add(path)
        os.mkdir(leaf, self._implied_mode, dir_fd=parent.fd)
        child = Directory(os.open(leaf, _OPEN_FLAGS, dir_fd=parent.fd), path, 0)
        self._keep(child)
        self.implied.add(path)
        return child

    def _refusal(self, parent: Directory, leaf: bytes) -> Exception:
        path = shown(join(parent.path, leaf))
        if S_ISLNK(os.stat(leaf, dir_fd=parent.fd, follow_symlinks=False).st_mode):
            return PathEscape(f"{path} is a symlink (expected a directory to put an entry in)")
        return InvalidArchive(f"{path} is no directory (expected one to put an entry in)")

    def _keep(self, directory: Directory) -> None:
        self._open[directory.path] = directory
        if len(self._open) > self._most:
            self._open.popitem(last=False)[1].close()


def open_root(target: str) -> Directory:
    """Open the directory that becomes the layer's root, rid of what it inherited. Raises OSError."""
    root = Directory(os.open(target, _OPEN_FLAGS), b"", 0)
    try:
        if os.listdir(root.fd):
            raise FileExistsError(EEXIST, "not empty", target)
        for name in os.listxattr(root.fd):
            if name.startswith("system.posix_acl_"):
                os.removexattr(root.fd, name)
    except BaseException:
        root.drop()
        raise
    return root
