"""The daemon's side of the downloader process: an origin whose work is done there.

Moves questions, answers and descriptors (`messages`). Starts the process at the first question, ends it after
a while without any, and starts another when it died: what was asked then fails with WorkerDied, and whoever
asks again gets an answer; a download goes on where it was. Called by `layerfs.app`.
"""

import array
import itertools
import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import trio

import layerfs
from layerfs import errors
from layerfs.errors import WorkerDied
from layerfs.fetch import messages
from layerfs.fetch.messages import Answer, Cancel, Failed, Logged, Question, Setup
from layerfs.fetch.origin import Arrived, Target
from layerfs.fetch.tasks import background
from layerfs.oci import Descriptor, Digest, Repository

IDLE_EXIT: Final = 60.0
"""Seconds that the process waits for another question."""
GRACE: Final = 2.0
"""Seconds that it has to take a message, or to stop what nobody wants any more."""
_READ: Final = 1 << 16


@dataclass(slots=True)
class _Pending:
    """A question without an answer."""

    arrived: Arrived | None
    answer: Answer | None = None
    answered: trio.Event = field(default_factory=trio.Event)


class _Downloader:
    """One process, which answers until it is closed."""

    def __init__(self, process: trio.Process, channel: socket.socket, idle_exit: float) -> None:
        self._process = process
        self._channel = trio.socket.from_stdlib_socket(channel)
        self._idle_exit = idle_exit
        self._sending = trio.Lock()
        self._pending: dict[int, _Pending] = {}
        self._serving = trio.CancelScope()
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether it takes no question any more."""
        return self._closed or self._serving.cancel_called

    async def serve(self) -> None:
        """Hear it until it ends, or has had nothing to do for a while; then see to its end."""
        self._note_idleness()
        why = "ended"
        try:
            with self._serving:
                await self._listen()
        except (msgspec.DecodeError, WorkerDied) as exc:
            why = f"{exc}; after an upgrade of layerfs, mount again"
        finally:
            self._closed = True
            self._channel.close()
            with trio.CancelScope(shield=True):
                status = await self._end()
            self._give_up(f"downloader {self._process.pid}: {why}, {status} (expected an answer)")

    async def ask(
        self, question: Question, passed: tuple[int, ...] = (), arrived: Arrived | None = None
    ) -> Answer:
        """Return the answer to *question*, which comes with the descriptors *passed*.

        Cancelled, it waits until the process has stopped working on it. Raises WorkerDied, and what the
        process says.
        """
        pending = self._pending[question.number] = _Pending(arrived)
        self._serving.deadline = float("inf")
        try:
            await self._send(question, passed)
            await pending.answered.wait()
        except trio.Cancelled:
            with trio.move_on_after(GRACE, shield=True) as scope:
                await self._send(Cancel(question.number))
                await pending.answered.wait()
            if scope.cancelled_caught:
                self._process.kill()
            raise
        finally:
            del self._pending[question.number]
            self._note_idleness()
        assert pending.answer is not None
        if isinstance(pending.answer, Failed):
            raise errors.named(pending.answer.error, pending.answer.message)
        return pending.answer

    async def set_up(self, setup: Setup) -> None:
        """Send what comes before all questions."""
        await self._send(setup)

    def _note_idleness(self) -> None:
        if not self._pending:
            self._serving.deadline = trio.current_time() + self._idle_exit

    async def _send(self, message: msgspec.Struct, passed: tuple[int, ...] = ()) -> None:
        data = memoryview(messages.frame(message))
        async with self._sending:
            # Shielded: half a message would make all that follow unreadable.
            with trio.move_on_after(GRACE, shield=True) as scope, suppress(OSError):  # `serve` tells of it
                if passed:
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))
                    data = data[await self._channel.sendmsg([data], [rights]) :]
                while data:
                    data = data[await self._channel.send(data) :]
        if scope.cancelled_caught:
            self._process.kill()

    async def _listen(self) -> None:
        unframer = messages.Unframer()
        with suppress(ConnectionError):
            while data := await self._channel.recv(_READ):
                for body in unframer.feed(data):
                    self._take(messages.from_downloader.decode(body))

    def _take(self, message: Answer | messages.Arrived | Logged) -> None:
        if isinstance(message, Logged):
            logging.getLogger(message.logger).log(message.level, "%s", message.text)
        elif (pending := self._pending.get(message.number)) is not None:
            if not isinstance(message, messages.Arrived):
                pending.answer = message
                pending.answered.set()
            elif pending.arrived is not None:
                pending.arrived(message.received)

    async def _end(self) -> str:
        """Wait for the end of the process, which has seen that of the socket; say how it came."""
        with trio.move_on_after(GRACE):
            await self._process.wait()
        self._process.kill()
        status = await self._process.wait()
        return f"killed by signal {-status}" if status < 0 else f"exited with status {status}"

    def _give_up(self, why: str) -> None:
        for number, pending in self._pending.items():
            pending.answer = pending.answer or Failed(number, WorkerDied.__name__, why)
            pending.answered.set()


class RemoteOrigin:
    """Registries, asked in another process. Made by `open_remote`; an `layerfs.fetch.origin.Origin`."""

    def __init__(self, nursery: trio.Nursery, setup: Setup, idle_exit: float) -> None:
        self._nursery = nursery
        self._setup = setup
        self._idle_exit = idle_exit
        self._starting = trio.Lock()
        self._downloader: _Downloader | None = None
        self._numbers = itertools.count()

    async def resolve(self, repository: Repository, tag: str) -> messages.Resolved:
        """Say what *tag* names now."""
        downloader = await self._ready()
        answer = await downloader.ask(messages.Resolve(next(self._numbers), repository, tag))
        assert isinstance(answer, messages.Resolved)
        return answer

    async def fetch_manifest(
        self, repository: Repository, digest: Digest, expected_size: int | None = None
    ) -> tuple[bytes, str]:
        """Return the verified bytes of a manifest or index, and its media type where that is known."""
        downloader = await self._ready()
        question = messages.FetchManifest(next(self._numbers), repository, digest, expected_size)
        answer = await downloader.ask(question)
        assert isinstance(answer, messages.Document)
        return answer.raw, answer.media_type

    async def fetch_config(self, repository: Repository, descriptor: Descriptor) -> bytes:
        """Return the verified bytes of a config."""
        downloader = await self._ready()
        answer = await downloader.ask(messages.FetchConfig(next(self._numbers), repository, descriptor))
        assert isinstance(answer, messages.Document)
        return answer.raw

    async def receive(
        self, repository: Repository, descriptor: Descriptor, target: Target, arrived: Arrived
    ) -> None:
        """Write what is missing of a blob. Raises as `layerfs.fetch.origin.Origin` says, and WorkerDied."""
        downloader = await self._ready()
        number = next(self._numbers)
        question = messages.Receive(number, repository, descriptor, target.offset, target.name)
        await downloader.ask(question, (target.file, target.lock), arrived)

    async def _ready(self) -> _Downloader:
        async with self._starting:
            if self._downloader is None or self._downloader.is_closed:
                self._downloader = await self._start()
            return self._downloader

    async def _start(self) -> _Downloader:
        ours, theirs = socket.socketpair()
        root = str(Path(layerfs.__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        with theirs:
            try:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-P", "-m", "layerfs.fetch.downloader", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    cwd="/",
                    env=os.environ | {"PYTHONPATH": path},
                    start_new_session=True,
                )
            except BaseException as exc:
                ours.close()
                if isinstance(exc, OSError):
                    raise WorkerDied(f"downloader: cannot be started: {exc.strerror}") from exc
                raise
        downloader = _Downloader(process, ours, self._idle_exit)
        self._nursery.start_soon(downloader.serve)
        await downloader.set_up(self._setup)
        return downloader


@asynccontextmanager
async def open_remote(setup: Setup, *, idle_exit: float = IDLE_EXIT) -> AsyncIterator[RemoteOrigin]:
    """Own the process and the task that hears it. A LayerfsError of the block leaves as itself."""
    async with background() as nursery:
        yield RemoteOrigin(nursery, setup, idle_exit)
