"""When a file was made, by statx(2), which Python 3.11 does not have. Decides nothing."""

import ctypes
import os
import struct
from typing import Final

from layerfs.host.libc import call

_AT_FDCWD: Final = -100
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_STATX_BTIME: Final = 0x800
_STATX_BYTES: Final = 256
_MASK_AT: Final = 0
_BTIME_AT: Final = 80
"""Offsets in struct statx (include/uapi/linux/stat.h)."""


def birth_ns(path: str | os.PathLike[str]) -> int:
    """Return when the file *path* itself was made, in nanoseconds since 1970; 0 where nobody tells.

    Nothing but the clock sets this time, so a copy never has that of its original. Some filesystems do not
    keep it (NFS, FUSE), and some sandboxes refuse the call. Raises OSError if there is no such file.
    """
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    name = os.fsencode(path)
    try:
        call("statx", _AT_FDCWD, name, _AT_SYMLINK_NOFOLLOW, _STATX_BTIME, buffer, thing=name)
    except FileNotFoundError:
        raise
    except OSError:
        return 0
    (mask,) = struct.unpack_from("=I", buffer, _MASK_AT)
    if not mask & _STATX_BTIME:
        return 0
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, _BTIME_AT)
    return int(seconds) * 10**9 + int(nanoseconds)
