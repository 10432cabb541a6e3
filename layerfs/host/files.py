"""Reading a file that should be small, whoever wrote it.

Decides nothing about what the file is; the caller puts the error into words.
"""

import os
from errno import EFBIG
from io import FileIO
from typing import Final

_CHUNK: Final = 1 << 20


def read_at_most(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the content of a file, never more than *limit* bytes. Raises OSError: EFBIG if there is more."""
    with open(path, "rb", buffering=0) as opened:
        return read_opened(opened, limit)


def read_opened(opened: FileIO, limit: int) -> bytes:
    """Return what is left of an open file, like `read_at_most`."""
    content = bytearray()
    while chunk := opened.read(min(_CHUNK, limit + 1 - len(content))):
        content += chunk
    if len(content) > limit:
        raise OSError(EFBIG, f"longer than {limit} bytes")
    return bytes(content)
