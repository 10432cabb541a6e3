"""A process beside this one, which ends when this one does, however that is.

The fork happens before trio is there. The two share a pipe whose end nobody writes to: to who was forked its
end of file says that the other has gone.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Final

_PATIENCE: Final = 5.0
"""Seconds that a process has to end by itself."""

log = logging.getLogger(__name__)


@contextmanager
def beside(work: Callable[[int], None], keep: Collection[int] = ()) -> Iterator[int]:
    """Run *work* in a process of its own during the block, and yield its pid. Raises OSError.

    *work* is given the descriptor that has an end of file once it is to end. Of all others of this process it
    has the standard ones and those to *keep*: it must hold open nothing that this one closes. An exception
    ends it with a line in the log.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _be_beside(work, reader, {0, 1, 2, reader, *keep})
    os.close(reader)
    try:
        yield child
    finally:
        os.close(writer)
        _end(child)


def _be_beside(work: Callable[[int], None], reader: int, keep: Collection[int]) -> None:
    status = 1
    try:
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in keep:
                with suppress(OSError):
                    os.close(int(name))
        work(reader)
        status = 0
    except BaseException:  # the last frame of the process
        log.exception("a process beside this one ended")
    finally:
        os._exit(status)


def _end(child: int) -> None:
    """Wait for the end of *child*, and see to it if it takes too long."""
    deadline = time.monotonic() + _PATIENCE
    with suppress(ChildProcessError):
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return
            time.sleep(0.01)
