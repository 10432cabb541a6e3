"""Bytes on their way to a reader, who may be slow, but not for long.

Pieces of a file go from the page cache to the socket by sendfile(2), in a thread, as a disk may be slow; with
TLS they are read and encrypted. Neither holds more than a piece of memory a reader.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import trio

from layerfs.serve.limits import Patience

_PIECE: Final = 1 << 20
"""Bytes of one sendfile(2)."""
_RECORD: Final = 64 << 10
"""Bytes that are copied at once."""
_UNSENT: Final = 256 << 10
"""Bytes that the kernel keeps for a reader beside what is under way: enough for a fast line, and little
enough to know what a reader has taken."""


class ReaderLost(Exception):
    """The reader has gone, or is too slow; the connection is of no use any more."""


class Outlet(Protocol):
    """What a connection is to those who write to it: plain or TLS."""

    async def send_all(self, data: bytes | memoryview, /) -> None:
        """Send *data*."""


def prepare(stream: trio.SocketStream) -> None:
    """Have the kernel keep little unsent: else a silent reader costs megabytes."""
    if stream.socket.family != trio.socket.AF_UNIX:
        stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, _UNSENT)


async def send_bytes(stream: Outlet, data: bytes, patience: Patience) -> None:
    """Send *data*. Raises ReaderLost."""
    rest = memoryview(data)
    while rest:
        with _waiting(patience, len(rest[:_RECORD])):
            await stream.send_all(rest[:_RECORD])
        rest = rest[_RECORD:]


async def send_file(stream: Outlet, fd: int, start: int, stop: int, patience: Patience) -> None:
    """Send the bytes of *fd* from *start* to before *stop*. Raises ReaderLost, OSError of the disk."""
    os.posix_fadvise(fd, start, stop - start, os.POSIX_FADV_SEQUENTIAL)
    while start < stop:
        if isinstance(stream, trio.SocketStream):
            start += await _send_piece(stream, fd, start, min(_PIECE, stop - start), patience)
        else:
            piece = await trio.to_thread.run_sync(os.pread, fd, min(_PIECE, stop - start), start)
            _require(len(piece))
            await send_bytes(stream, piece, patience)
            start += len(piece)


async def _send_piece(stream: trio.SocketStream, fd: int, start: int, count: int, patience: Patience) -> int:
    with _waiting(patience, 0):
        await trio.lowlevel.wait_writable(stream.socket)

    def send() -> int:
        try:
            return os.sendfile(stream.socket.fileno(), fd, start, count)
        except BlockingIOError:
            return -1
        except (BrokenPipeError, ConnectionError) as exc:
            raise ReaderLost from exc

    sent = await trio.to_thread.run_sync(send)
    if sent < 0:
        return 0
    _require(sent)
    patience.spend(0, sent)
    return sent


def _require(count: int) -> None:
    if not count:
        raise ReaderLost("the file is shorter than it was")


@contextmanager
def _waiting(patience: Patience, taken: int) -> Iterator[None]:
    """Let the block wait for the reader as long as *patience* lasts; he then has *taken* bytes."""
    began = trio.current_time()
    with trio.move_on_after(max(0, patience.seconds)) as scope:
        try:
            yield
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ReaderLost from exc
    if scope.cancelled_caught:
        raise ReaderLost("too slow")
    patience.spend(trio.current_time() - began, taken)
