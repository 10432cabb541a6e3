"""The daemon's end: takes requests of its own user, one task each, and lets nobody keep it waiting.

Whatever a client sends, says too slowly or does not read costs it its connection, and nobody else anything.
"""

import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import msgspec
import trio

from layerfs.delegation import peers, places
from layerfs.delegation.wire import ALIVE, ALIVE_SECONDS, END, REQUEST_MAX, PullRequest, framed
from layerfs.host.processes import start_time

log = logging.getLogger(__name__)


class ClientLimits(msgspec.Struct, frozen=True):
    """What clients may use."""

    clients: int = 64
    """Connections at the same time."""
    request_seconds: float = 1.0
    """For the whole of a request."""
    stuck_seconds: float = 30.0
    """Without a byte read by a client that there is something for."""
    alive_seconds: float = ALIVE_SECONDS
    """After which a client is told that its request is still being done."""
    waiting_bytes: int = 8 << 20
    """What may wait to be read by one client, beside the frame that was added last."""


_STARTS: Final = "."
"""Begins the name of a socket that nobody listens at yet, which is not to be taken for one of the dead."""
_PAUSE: Final = 0.1
"""Seconds until it is tried again to take a connection, where that failed."""
_SIZES: Final = 4
"""Bytes of two numbers: columns and lines of the client's terminal."""


class Conversation:
    """A client whose request is being done: what it is told, and how large its terminal is."""

    def __init__(self, link: trio.socket.SocketType, limits: ClientLimits, scope: trio.CancelScope) -> None:
        self._link = link
        self._limits = limits
        self._scope = scope
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._news = trio.Event()
        self._empty = trio.Event()
        self._empty.set()
        self.size: tuple[int, int] | None = None
        """Columns and lines, if it has said that they changed."""

    @property
    def is_over(self) -> bool:
        """Whether the client has gone, or was given up."""
        return self._scope.cancel_called

    def say(self, kind: bytes, payload: bytes = b"") -> None:
        """Have a frame sent soon; who reads too little is given up."""
        if self._bytes > self._limits.waiting_bytes:
            self._scope.cancel()
            return
        frame = framed(kind, payload)
        self._waiting.append(frame)
        self._bytes += len(frame)
        self._empty = trio.Event() if self._empty.is_set() else self._empty
        self._news.set()

    def sketch(self, kind: bytes, payload: bytes = b"") -> None:
        """Have a frame sent unless others wait: one that the next of its kind replaces."""
        if not self._waiting:
            self.say(kind, payload)

    async def sent(self) -> None:
        """Return once all is sent that was said."""
        await self._empty.wait()

    async def end(self, code: int) -> None:
        """Say how it ended, and return once all is sent."""
        self.say(END, bytes([code]))
        await self.sent()

    async def send_on(self) -> None:
        """Send what is said. Runs until cancelled; gives up who does not read."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            while self._waiting:
                rest = memoryview(self._waiting[0])
                while rest:
                    with trio.move_on_after(self._limits.stuck_seconds) as stuck:
                        rest = rest[await self._link.send(rest) :]
                    if stuck.cancelled_caught:
                        self._scope.cancel()
                self._bytes -= len(self._waiting.pop(0))
            self._empty.set()

    async def live(self) -> None:
        """Say now and then that it goes on. Runs until cancelled."""
        while True:
            await trio.sleep(self._limits.alive_seconds)
            self.sketch(ALIVE)

    async def listen(self) -> None:
        """Hear of the client's terminal until it goes; then all that is done for it is cancelled."""
        while (raw := await received(self._link, _SIZES)) is not None:
            self.size = int.from_bytes(raw[:2], "big"), int.from_bytes(raw[2:], "big")
        self._scope.cancel()


Attend = Callable[[PullRequest, int, Conversation], Awaitable[None]]
"""Does what a request of the process with that pid asks for, or not; says so itself."""


async def received(link: trio.socket.SocketType, count: int) -> bytes | None:
    """Return the next *count* bytes; None if there are not so many."""
    found = b""
    while len(found) < count:
        more = await link.recv(min(count - len(found), 1 << 16))
        if not more:
            return None
        found += more
    return found


class Desk:
    """Takes connections at a socket of its own: `listening` makes it, `serve` attends to who connects."""

    def __init__(self, attend: Attend, limits: ClientLimits = ClientLimits()) -> None:  # noqa: B008 - frozen
        self._attend = attend
        self._limits = limits
        self._open = 0

    @contextmanager
    def listening(self, directory: str) -> Iterator[socket.socket]:
        """Listen in *directory* for the block. Raises OSError."""
        _prepare(directory)
        name = places.name_of(f"{os.getpid()}-{start_time(os.getpid())}")
        early, path = f"{directory}/{_STARTS}{name}", f"{directory}/{name}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(early)
            try:
                os.chmod(early, 0o600)
                listener.listen(self._limits.clients)
                os.rename(early, path)
                yield listener
            finally:
                for each in (early, path):
                    with suppress(OSError):
                        os.unlink(each)

    async def serve(self, listener: socket.socket) -> None:
        """Attend to whoever connects. Runs until cancelled."""
        taken = trio.socket.from_stdlib_socket(listener)
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    link, _ = await taken.accept()
                except OSError:  # descriptors are used up, for instance
                    await trio.sleep(_PAUSE)
                    continue
                if self._open >= self._limits.clients:
                    link.close()
                else:
                    self._open += 1
                    nursery.start_soon(self._safely, link)

    async def _safely(self, link: trio.socket.SocketType) -> None:
        try:
            with link:
                await self._hear(link)
        except* OSError as gone:  # the client has
            log.debug("a client has gone: %s", gone.exceptions[0])
        except* Exception:
            log.exception("unexpected failure of what a command asked for")
        finally:
            self._open -= 1

    async def _hear(self, link: trio.socket.SocketType) -> None:
        pid = peers.process_of(link)  # type: ignore[arg-type]  # has what is used of it
        if pid is None:
            return
        request = None
        with trio.move_on_after(self._limits.request_seconds):
            request = await _request(link)
        if request is None:
            return
        async with trio.open_nursery() as nursery:
            conversation = Conversation(link, self._limits, nursery.cancel_scope)
            nursery.start_soon(conversation.send_on)
            nursery.start_soon(conversation.live)
            nursery.start_soon(conversation.listen)
            await self._attend(request, pid, conversation)
            nursery.cancel_scope.cancel()


async def _request(link: trio.socket.SocketType) -> PullRequest | None:
    head = await received(link, 4)
    size = int.from_bytes(head or b"", "big")
    if not 0 < size <= REQUEST_MAX:
        return None
    raw = await received(link, size)
    try:
        return None if raw is None else PullRequest.parse(raw)
    except ValueError as exc:
        log.debug("a request that makes no sense: %s", exc)
        return None


def _prepare(directory: str) -> None:
    """Make *directory*, and take away sockets that nobody listens at. Raises OSError."""
    os.makedirs(os.path.dirname(directory), mode=0o755, exist_ok=True)
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    if not places.is_private(directory, os.geteuid()):
        raise PermissionError(errno.EPERM, "not a directory of this user alone", directory)
    for path in (f"{directory}/{name}" for name in os.listdir(directory) if not name.startswith(_STARTS)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link, suppress(OSError):
            link.setblocking(False)
            try:
                link.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
