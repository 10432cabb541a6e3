"""Removal of what a later member replaces. Follows no link. Called by `placing`."""

import os
from typing import Final

_OPEN_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(directory: int, leaf: bytes | str) -> None:
    """Remove *leaf*, a file or a whole tree, from an open directory; nothing is fine too. Raises OSError."""
    try:
        os.unlink(leaf, dir_fd=directory)
    except IsADirectoryError:
        _remove_tree(directory, leaf)
    except FileNotFoundError:
        pass


def _remove_tree(directory: int, leaf: bytes | str) -> None:
    fd = os.open(leaf, _OPEN_FLAGS, dir_fd=directory)
    try:
        for name in os.listdir(fd):
            remove(fd, name)
    finally:
        os.close(fd)
    os.rmdir(leaf, dir_fd=directory)
