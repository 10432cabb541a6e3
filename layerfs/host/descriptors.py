"""Descriptors that are closed again, however a block ends, and what the kernel says of one."""

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


def mount_id(fd: int) -> int:
    """Return the kernel's number of the mount that *fd* was opened in, see proc_pid_fdinfo(5)."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(b"mnt_id:"))
