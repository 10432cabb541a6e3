"""Removal of what a later member replaces. Follows no link."""

import os
from collections.abc import Callable
from typing import Final

from layerfs.layer.paths import join

_OPEN_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(directory: int, path: bytes, leaf: bytes, gone: Callable[[bytes], None]) -> None:
    """Remove *leaf*, a file or a whole tree, from an open directory; nothing is fine too. Raises OSError.

    *path* is its path in the layer. Calls *gone* with the path of everything that was removed, and of what
    was not there: so that forgetting costs what making it cost, and an archive cannot make it cost more.
    """
    try:
        os.unlink(leaf, dir_fd=directory)
    except IsADirectoryError:
        _remove_tree(directory, path, leaf, gone)
    except FileNotFoundError:
        pass
    gone(path)


def _remove_tree(directory: int, path: bytes, leaf: bytes, gone: Callable[[bytes], None]) -> None:
    fd = os.open(leaf, _OPEN_FLAGS, dir_fd=directory)
    try:
        for name in map(os.fsencode, os.listdir(fd)):
            remove(fd, join(path, name), name, gone)
    finally:
        os.close(fd)
    os.rmdir(leaf, dir_fd=directory)
