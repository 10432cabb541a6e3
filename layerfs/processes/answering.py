"""The helper's end: answers many questions at once, each in a task of its own, until the owner is gone.

Ends when the socket does, in the middle of whatever it does: the answers would be for nobody. Answers leave
in the order in which they were given.
"""

import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Final

import msgspec
import trio

from layerfs import errors
from layerfs.errors import LayerfsError
from layerfs.foreign import OneLine
from layerfs.host.priority import give_way
from layerfs.processes import spawning
from layerfs.processes.frames import Unframer
from layerfs.processes.messages import (
    Answered,
    Ask,
    Cancel,
    Cancelled,
    Counted,
    Logged,
    Start,
    Told,
    Unanswered,
    frame,
    to_helper,
)

_READ: Final = 1 << 16
_AT_ONCE: Final = 64
"""Messages sent by one call."""
_FILES_MAX: Final = 16
"""Descriptors in one read of the socket: a message brings two at most."""

Handler = Callable[[msgspec.Raw, tuple[int, ...], Callable[[int], None]], Awaitable[msgspec.Raw]]
"""Answers a question, given its descriptors, which are closed afterwards, and whom to tell how far it is."""
Opened = Callable[[msgspec.Raw, Callable[[msgspec.Raw], None]], AbstractAsyncContextManager[Handler]]
"""Owns who answers, given the settings, and whom to tell what was counted (`Counted`)."""


def run(opened: Opened) -> None:
    """Run as a helper process: the socket's number is the first argument; *opened* gets the settings."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    give_way()
    spawning.forget_path()
    trio.run(_serve, socket.socket(fileno=int(sys.argv[1])), opened)


async def _serve(channel: socket.socket, opened: Opened) -> None:
    server = _Server(trio.socket.from_stdlib_socket(channel))
    start = await server.next_message()
    if not isinstance(start, Start):
        return
    logging.basicConfig(handlers=[_Forwarder(server)], level=start.log_level)
    async with opened(start.settings, server.count) as handler, trio.open_nursery() as nursery:
        nursery.start_soon(server.send_answers)
        await server.obey(handler, nursery)
        os._exit(0)  # questions may be open: their answers are for nobody


class _Server:
    def __init__(self, channel: trio.socket.SocketType) -> None:
        self._channel = channel
        self._token = trio.lowlevel.current_trio_token()
        self._outgoing, self._to_send = trio.open_memory_channel[msgspec.Struct](float("inf"))
        self._unframer = Unframer()
        self._waiting: deque[Start | Ask | Cancel] = deque()
        self._descriptors: deque[int] = deque()
        self._running: dict[int, trio.CancelScope] = {}

    async def next_message(self) -> Start | Ask | Cancel | None:
        """Return what comes next; None when there will be no more."""
        while not self._waiting:
            data, ancillary, _, _ = await self._channel.recvmsg(
                _READ, socket.CMSG_LEN(_FILES_MAX * 4), socket.MSG_CMSG_CLOEXEC
            )
            if not data:
                return None
            for _, _, passed in ancillary:
                self._descriptors.extend(memoryview(passed).cast("i"))
            self._waiting.extend(map(to_helper.decode, self._unframer.feed(data)))
        return self._waiting.popleft()

    async def obey(self, handler: Handler, nursery: trio.Nursery) -> None:
        """Answer in tasks of *nursery* until there are no more questions."""
        while (message := await self.next_message()) is not None:
            if isinstance(message, Cancel):
                if (scope := self._running.get(message.number)) is not None:
                    scope.cancel()
            elif isinstance(message, Ask):
                # Here, not in the task: a `Cancel` may come next, and descriptors in the order of messages.
                scope = self._running[message.number] = trio.CancelScope()
                files = tuple(self._descriptors.popleft() for _ in range(message.files))
                nursery.start_soon(self._answer, handler, message, files, scope)

    async def send_answers(self) -> None:
        """Send what was said. Runs until cancelled."""
        async for message in self._to_send:
            data = memoryview(b"".join(map(frame, (message, *self._waiting_too()))))
            while data:
                data = data[await self._channel.send(data) :]

    def _waiting_too(self) -> Iterator[msgspec.Struct]:
        """Take what else is to be sent: all of it is one turn of the owner."""
        for _ in range(_AT_ONCE):
            try:
                yield self._to_send.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return

    def say(self, message: msgspec.Struct) -> None:
        """Have *message* sent soon."""
        self._outgoing.send_nowait(message)

    def count(self, counts: msgspec.Raw) -> None:
        """Have what was counted sent soon, before what is said from now on."""
        self.say(Counted(counts))

    def say_from_anywhere(self, message: msgspec.Struct) -> None:
        """Have *message* sent soon; from any thread."""
        self._token.run_sync_soon(self.say, message)

    async def _answer(
        self, handler: Handler, ask: Ask, files: tuple[int, ...], scope: trio.CancelScope
    ) -> None:
        def told(value: int) -> None:
            self.say(Told(ask.number, value))

        answer: Answered | Cancelled | Unanswered = Cancelled(ask.number)
        try:
            with scope:
                answer = Answered(ask.number, await handler(ask.operation, files, told))
        except LayerfsError as exc:
            answer = Unanswered(ask.number, errors.name_of(exc), exc.text, exc.asked)
        finally:
            del self._running[ask.number]
            for descriptor in files:
                os.close(descriptor)
        self.say(answer)


class _Forwarder(logging.Handler):
    """Sends lines to the owner's log, where they look like all others."""

    def __init__(self, server: _Server) -> None:
        super().__init__()
        self.setFormatter(OneLine("%(message)s"))
        self._server = server

    def emit(self, record: logging.LogRecord) -> None:
        self._server.say_from_anywhere(Logged(record.name, record.levelno, self.format(record)))
