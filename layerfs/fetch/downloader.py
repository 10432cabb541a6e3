"""The downloader process, ``python -m layerfs.fetch.downloader FD``: asks registries, for one daemon.

A process of its own because the daemon's loop answers lookups: each step of a download would stand in their
way. Its one client keeps the connections, logins and tokens of all registries. Obeys `messages` from the
socket FD, and ends when that does, whatever it does: that is how it learns that the daemon is gone. Started
by `remote`.
"""

import logging
import os
import signal
import socket
import sys
from collections import deque
from pathlib import Path
from typing import Final, assert_never

import msgspec
import trio

from layerfs import errors
from layerfs.errors import LayerfsError
from layerfs.fetch.messages import (
    Answer,
    Arrived,
    Cancel,
    Cancelled,
    Document,
    Failed,
    FetchConfig,
    FetchManifest,
    Logged,
    Question,
    Receive,
    Received,
    Resolve,
    Resolved,
    Setup,
    Unframer,
    frame,
    to_downloader,
)
from layerfs.fetch.origin import Origin, Target
from layerfs.fetch.receiving import Streamed
from layerfs.host.priority import give_way
from layerfs.layer.names import from_text
from layerfs.registry import RegistrySettings
from layerfs.registry.client import RegistryClient

_READ: Final = 1 << 16
_PASSED: Final = 2
"""Descriptors that come with `Receive`."""


class Server:
    """Answers questions, each in a task of its own; answers leave in the order in which they were given."""

    def __init__(self, channel: trio.socket.SocketType) -> None:
        self._channel = channel
        self._token = trio.lowlevel.current_trio_token()
        self._outgoing, self._to_send = trio.open_memory_channel[msgspec.Struct](float("inf"))
        self._unframer = Unframer()
        self._waiting: deque[Setup | Question | Cancel] = deque()
        self._descriptors: deque[int] = deque()
        self._running: dict[int, trio.CancelScope] = {}

    async def next_message(self) -> Setup | Question | Cancel | None:
        """Return what comes next; None when there will be no more."""
        while not self._waiting:
            data, ancillary, _, _ = await self._channel.recvmsg(
                _READ, socket.CMSG_LEN(_PASSED * 4), socket.MSG_CMSG_CLOEXEC
            )
            if not data:
                return None
            for _, _, passed in ancillary:
                self._descriptors.extend(memoryview(passed).cast("i"))
            self._waiting.extend(map(to_downloader.decode, self._unframer.feed(data)))
        return self._waiting.popleft()

    async def obey(self, origin: Origin, nursery: trio.Nursery) -> None:
        """Answer in tasks of *nursery* until there are no more questions."""
        while (message := await self.next_message()) is not None:
            if isinstance(message, Cancel):
                if (scope := self._running.get(message.number)) is not None:
                    scope.cancel()
            elif not isinstance(message, Setup):
                # Here, not in the task: a `Cancel` may come next, and descriptors in the order of messages.
                scope = self._running[message.number] = trio.CancelScope()
                passed = [self._descriptors.popleft() for _ in range(_PASSED * isinstance(message, Receive))]
                nursery.start_soon(self._answer, origin, message, passed, scope)

    async def send_answers(self) -> None:
        """Send what was said. Runs until cancelled."""
        async for message in self._to_send:
            data = memoryview(frame(message))
            while data:
                data = data[await self._channel.send(data) :]

    def say(self, message: msgspec.Struct) -> None:
        """Have *message* sent soon."""
        self._outgoing.send_nowait(message)

    def say_from_anywhere(self, message: msgspec.Struct) -> None:
        """Have *message* sent soon; from any thread."""
        self._token.run_sync_soon(self.say, message)

    async def _answer(
        self, origin: Origin, question: Question, passed: list[int], scope: trio.CancelScope
    ) -> None:
        answer: Answer = Cancelled(question.number)
        try:
            with scope:
                answer = await self._answered(origin, question, passed)
        except LayerfsError as exc:
            answer = Failed(question.number, errors.name_of(exc), str(exc))
        finally:
            del self._running[question.number]
            for descriptor in passed:
                os.close(descriptor)
        self.say(answer)

    async def _answered(self, origin: Origin, question: Question, passed: list[int]) -> Answer:
        match question:
            case Resolve(number, repository, tag):
                found = await origin.resolve(repository, tag)
                return Resolved(number, found.digest, found.raw)
            case FetchManifest(number, repository, digest, expected_size):
                return Document(number, *await origin.fetch_manifest(repository, digest, expected_size))
            case FetchConfig(number, repository, descriptor):
                return Document(number, await origin.fetch_config(repository, descriptor))
            case Receive(number, repository, descriptor, offset, name):
                file, lock = passed
                await origin.receive(
                    repository,
                    descriptor,
                    Target(file, lock, offset, name),
                    lambda received: self.say(Arrived(number, received)),
                )
                return Received(number)
            case _:
                assert_never(question)


class _Forwarder(logging.Handler):
    """Sends lines to the daemon's log, where they look like all others."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    def emit(self, record: logging.LogRecord) -> None:
        self._server.say_from_anywhere(Logged(record.name, record.levelno, self.format(record)))


async def _serve(channel: socket.socket) -> None:
    server = Server(trio.socket.from_stdlib_socket(channel))
    setup = await server.next_message()
    if not isinstance(setup, Setup):
        return
    logging.basicConfig(handlers=[_Forwarder(server)], level=setup.log_level, format="%(message)s")
    authfile = None if setup.authfile is None else Path(os.fsdecode(from_text(setup.authfile)))
    settings = RegistrySettings(insecure=frozenset(setup.insecure), authfile=authfile, offline=setup.offline)
    async with RegistryClient(settings) as client, trio.open_nursery() as nursery:
        nursery.start_soon(server.send_answers)
        await server.obey(Streamed(client, inline=True), nursery)
        os._exit(0)  # questions may be open: their answers are for nobody


def _forget_path() -> None:
    """Take out of the environment what `remote` put into it, before credential helpers get it."""
    _, _, rest = os.environ.pop("PYTHONPATH", "").partition(os.pathsep)
    if rest:
        os.environ["PYTHONPATH"] = rest


def main() -> None:
    """Run as a downloader process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    give_way()
    _forget_path()
    trio.run(_serve, socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
