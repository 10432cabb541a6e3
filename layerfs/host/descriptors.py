"""Descriptors that are closed again, however a block ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def closing_fd(fd: int) -> Iterator[int]:
    """Yield *fd*, and close it after the block."""
    try:
        yield fd
    finally:
        os.close(fd)
