"""Reading a file that may never answer, as those of a FUSE mount with a hanging daemon.

Forks, so it is for a process without threads.
"""

import os
import select
import signal
import time
from errno import ETIMEDOUT
from typing import Final

_LARGEST: Final = 16 << 20


def read_within(path: bytes, seconds: float) -> bytes:
    """Return the content of *path*. Raises OSError: of the file, or TimeoutError if it takes longer.

    A child does it, because a thread in an unanswered read keeps its whole process from ending.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os._exit(_child(path, reader, writer))
    os.close(writer)
    try:
        content = _drain(reader, seconds)
    finally:
        os.close(reader)
    if content is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, os.WNOHANG)  # it may outlive us, until its daemon ends
        raise TimeoutError(ETIMEDOUT, os.strerror(ETIMEDOUT), path)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status > 0:
        raise OSError(status, os.strerror(status), path)
    return content


def _child(path: bytes, reader: int, writer: int) -> int:
    """Copy the file into the pipe; return an errno."""
    try:
        os.close(reader)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        while chunk := os.read(fd, 1 << 16):
            while chunk:
                chunk = chunk[os.write(writer, chunk) :]
    except OSError as exc:
        return exc.errno or 1
    return 0


def _drain(fd: int, seconds: float) -> bytes | None:
    """Return all that comes before the other end closes; None if that takes too long."""
    deadline = time.monotonic() + seconds
    content = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0] or len(content) > _LARGEST:
            return None
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            return content
        content += chunk
