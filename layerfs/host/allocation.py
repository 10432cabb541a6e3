"""Where a filesystem puts what is made: a hint to its allocator. Source: ioctl_iflags(2), chattr(1)."""

import fcntl
import os
import struct
from contextlib import suppress
from typing import Final

from layerfs.host.descriptors import closing_fd

_LONG: Final = struct.calcsize("l")
_GET_FLAGS: Final = 2 << 30 | _LONG << 16 | ord("f") << 8 | 1
_SET_FLAGS: Final = 1 << 30 | _LONG << 16 | ord("f") << 8 | 2
"""FS_IOC_GETFLAGS and FS_IOC_SETFLAGS; the numbers count a long, the kernel reads an int."""
_TOPDIR: Final = 0x0002_0000
"""FS_TOPDIR_FL."""


def spread_out(directory: str | os.PathLike[str]) -> None:
    """Say that the directories in *directory* have nothing to do with one another.

    ext4 then begins each where it has room. Without, all trees are put beside their parent, and each file of
    a new one is sought past the inodes of all that was removed there within the last minutes, which ext4
    does not give again (fs/ext4/ialloc.c, recently_deleted). Other filesystems refuse, and need no hint.
    """
    with suppress(OSError), closing_fd(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        (flags,) = struct.unpack("=I", fcntl.ioctl(fd, _GET_FLAGS, bytes(4)))
        if not flags & _TOPDIR:
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("=I", flags | _TOPDIR))
