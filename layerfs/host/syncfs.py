"""syncfs(2): the one durable point of many trees. Called by the store, in a thread."""

from layerfs.host.libc import call


def syncfs(fd: int) -> None:
    """Write everything that is dirty on the filesystem of *fd* to its disk; returns when it is there.

    Since Linux 5.8 an error of the write-back since the last call is reported. Raises OSError.
    """
    call("syncfs", fd)
