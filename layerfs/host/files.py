"""Reading a file that should be small, and writing at a place in one.

The caller puts the error into words, and decides what else the file has to be.
"""

import os
from errno import EFBIG, EIO, EPERM
from io import FileIO
from typing import Final

from layerfs.host.trust import distrust

_CHUNK: Final = 1 << 20
_FIRST: Final = 16 << 10
"""Bytes that are read first, and again to see the end: most files have fewer, and buffers cost pages."""


def read_believed(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the content of a file that only this user and root can change, never more than *limit* bytes.

    Raises OSError: EPERM, with the words of `layerfs.host.trust.distrust`, for a file of others; EFBIG.
    """
    with open(path, "rb", buffering=0) as opened:
        problem = distrust(os.fstat(opened.fileno()))
        if problem is not None:
            raise OSError(EPERM, problem)
        return read_opened(opened, limit)


def read_opened(opened: FileIO, limit: int) -> bytes:
    """Return what is left of an open file, whoever wrote it. Raises OSError: EFBIG if it is longer."""
    content = bytearray()
    while chunk := opened.read(min(max(_FIRST, len(content)), _CHUNK, limit + 1 - len(content))):
        content += chunk
    if len(content) > limit:
        raise OSError(EFBIG, f"longer than {limit} bytes")
    return bytes(content)


def write_all_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of *data* at *offset*, however little pwrite(2) takes at a time. Raises OSError."""
    rest = memoryview(data)
    while rest:
        taken = os.pwrite(fd, rest, offset)
        if taken == 0:
            raise OSError(EIO, "the file accepts no more bytes")
        offset += taken
        rest = rest[taken:]
