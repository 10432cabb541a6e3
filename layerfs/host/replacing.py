"""A mount that takes the place of another at one path, without a moment in which neither is there.

It is made at a directory of its own. Once it answers, a clone of it is put beneath the old one
(MOVE_MOUNT_BENEATH of move_mount(2), Linux 6.5), and the old one is detached: whoever walks the path finds
the one or the other, and what is open in the old one goes on until it is closed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL, ENOSYS, EPERM
from typing import Final

from layerfs.errors import MountError
from layerfs.host.descriptors import closing_fd
from layerfs.host.libc import syscall
from layerfs.host.mountpoint import Mountpoint

_OPEN_TREE: Final = 428
_CLONE: Final = 1


class Replacement:
    """A new mount, and the path that it is made for. Made by `replacing`."""

    def __init__(self, place: Mountpoint, target: Mountpoint) -> None:
        self.place: Final = place
        """Where the new mount is made."""
        self._target = target

    def take_over(self) -> None:
        """Put the new mount at the path of the old one, and detach that. Raises MountError."""
        try:
            flags = _CLONE | os.O_CLOEXEC
            with closing_fd(syscall("open_tree", _OPEN_TREE, -100, self.place.inside, flags)) as tree:
                self._target.put_beneath(tree)
        except OSError as error:
            raise MountError(f"{self._target}: cannot be replaced: {_refusal(error)}") from error
        self._target.detach_top()
        self.place.unmount(lazy=True)


def _refusal(error: OSError) -> str:
    if error.errno == EPERM:
        return "not permitted (expected root; others unmount, and mount anew)"
    if error.errno in (EINVAL, ENOSYS):
        kernel = os.uname().release
        return (
            f"Linux {kernel} puts no mount beneath another (expected 6.5 or newer; unmount, and mount anew)"
        )
    return str(error.strerror)


@contextmanager
def replacing(target: Mountpoint) -> Iterator[Replacement]:
    """Own the directory where what replaces the mount at *target* is made."""
    import tempfile  # most mounts replace none

    directory = tempfile.mkdtemp(prefix="layerfs-replacing-")
    try:
        with Mountpoint.open(directory) as place:
            yield Replacement(place, target)
    finally:
        os.rmdir(directory)
