"""Reading a file that should be small, whoever wrote it.

Decides nothing about what the file is; who asks puts the error into words of his own. Called by the store,
the keychain and the configuration.
"""

import os
from errno import EFBIG
from typing import Final

_CHUNK: Final = 1 << 20


def read_at_most(file: str | os.PathLike[str] | int, limit: int) -> bytes:
    """Return the content of a file, or of a descriptor, which is closed; never more than *limit* bytes.

    Raises OSError: EFBIG if there is more.
    """
    content = bytearray()
    with open(file, "rb", buffering=0) as opened:
        while chunk := opened.read(min(_CHUNK, limit + 1 - len(content))):
            content += chunk
    if len(content) > limit:
        raise OSError(EFBIG, f"longer than {limit} bytes")
    return bytes(content)
