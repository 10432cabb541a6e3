"""The owner's end of a helper: questions to a process that runs while there are any.

The process starts at the first question and ends after a while without one. When it dies, what was asked of
it fails with WorkerDied, and whoever asks again is answered by another.
"""

import array
import itertools
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec
import trio

from layerfs import errors
from layerfs.errors import WorkerDied
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
    from_helper,
)

GRACE: Final = 2.0
"""Seconds that a process has to take a message, or to stop what nobody wants any more."""
_READ: Final = 1 << 16


class _Question(msgspec.Struct):
    """A question that was asked, and its answer once it comes."""

    told: Callable[[int], None]
    answer: Answered | Cancelled | Unanswered | None = None
    answered: trio.Event = msgspec.field(default_factory=trio.Event)


class _Process:
    """One process, which answers until it is closed."""

    def __init__(self, owner: "Helper", process: trio.Process, channel: socket.socket) -> None:
        self._owner = owner
        self._name = owner.name
        self._process = process
        self._channel = trio.socket.from_stdlib_socket(channel)
        self._idle_exit = owner.idle_exit
        self._sending = trio.Lock()
        self._questions: dict[int, _Question] = {}
        self._serving = trio.CancelScope()
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the process takes no further questions."""
        return self._closed or self._serving.cancel_called

    async def serve(self) -> None:
        """Read its messages until it ends, or has had no question for a while; then end and reap it."""
        self._note_idleness()
        why = "ended"
        try:
            with self._serving:
                await self._listen()
                self._owner.died()
        except (msgspec.DecodeError, WorkerDied) as exc:
            self._owner.died()
            why = f"{exc}; after an upgrade of layerfs, mount again"
        finally:
            self._closed = True
            self._channel.close()
            with trio.CancelScope(shield=True):
                status = await self._end()
            self._give_up(f"{self._name} {self._process.pid}: {why}, {status} (expected an answer)")

    async def ask(
        self, number: int, operation: msgspec.Raw, files: tuple[int, ...], told: Callable[[int], None]
    ) -> msgspec.Raw:
        """Return the answer. Cancelled, it waits until the process has stopped working on it.

        Raises WorkerDied, and what the process says.
        """
        question = self._questions[number] = _Question(told)
        self._serving.deadline = float("inf")
        try:
            await self.send(Ask(number, operation, len(files)), files)
            await question.answered.wait()
        except trio.Cancelled:
            with trio.move_on_after(GRACE, shield=True) as scope:
                await self.send(Cancel(number))
                await question.answered.wait()
            if scope.cancelled_caught:
                self._process.kill()
            raise
        finally:
            del self._questions[number]
            self._note_idleness()
        match question.answer:
            case Answered(_, result):
                return result
            case Unanswered(_, error, message, asked):
                raise errors.named(error, message, asked)
            case answer:
                raise WorkerDied(f"{self._name} {self._process.pid}: {answer} (expected an answer)")

    async def send(self, message: msgspec.Struct, files: tuple[int, ...] = ()) -> None:
        """Send all of a message, or see to it that the process ends."""
        data = memoryview(frame(message))
        async with self._sending:
            # Shielded: half a message would make all that follow unreadable.
            with trio.move_on_after(GRACE, shield=True) as scope, suppress(OSError):  # `serve` tells of it
                if files:
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))
                    data = data[await self._channel.sendmsg([data], [rights]) :]
                while data:
                    data = data[await self._channel.send(data) :]
        if scope.cancelled_caught:
            self._process.kill()

    def _note_idleness(self) -> None:
        if not self._questions:
            self._serving.deadline = trio.current_time() + self._idle_exit

    async def _listen(self) -> None:
        unframer = Unframer()
        with suppress(ConnectionError):
            while data := await self._channel.recv(_READ):
                for body in unframer.feed(data):
                    self._take(from_helper.decode(body))

    def _take(self, message: Answered | Unanswered | Cancelled | Told | Logged | Counted) -> None:
        if isinstance(message, Logged):
            logging.getLogger(message.logger).log(message.level, "%s", message.text)
        elif isinstance(message, Counted):
            self._owner.counted(message.counts)
        elif (question := self._questions.get(message.number)) is not None:
            if isinstance(message, Told):
                question.told(message.value)
            else:
                question.answer = message
                question.answered.set()

    async def _end(self) -> str:
        """Wait for the end of the process, which has seen that of the socket; say how it came."""
        with trio.move_on_after(GRACE):
            await self._process.wait()
        self._process.kill()
        return spawning.how_it_ended(await self._process.wait())

    def _give_up(self, why: str) -> None:
        for number, question in self._questions.items():
            question.answer = question.answer or Unanswered(number, WorkerDied.__name__, why)
            question.answered.set()


class Helper:
    """Asks a process of *module*, which `layerfs.processes.answering` runs; *name* is for error texts.

    Tasks of *nursery* hear the process; cancelling them ends it. *counted* hears what the process counts, and
    may raise msgspec.DecodeError, after which nobody listens to it any more; *died* is called when one ends
    that nobody has told to.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        name: str,
        module: str,
        settings: msgspec.Raw,
        idle_exit: float,
        counted: Callable[[msgspec.Raw], None] = lambda _: None,
        died: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.idle_exit = idle_exit
        self.counted = counted
        self.died = died
        self._nursery = nursery
        self._module = module
        self._settings = settings
        self._starting = trio.Lock()
        self._process: _Process | None = None
        self._numbers = itertools.count()

    async def warm(self) -> None:
        """Start the process, for whoever is about to ask. Failures are told to who asks."""
        with suppress(WorkerDied):
            await self._ready()

    async def ask(
        self, operation: msgspec.Raw, files: tuple[int, ...], told: Callable[[int], None]
    ) -> msgspec.Raw:
        """Return the answer to *operation*, which comes with descriptors of *files*.

        On cancellation it waits until nothing works on it any more. Raises WorkerDied, and what the helper
        says.
        """
        process = await self._ready()
        return await process.ask(next(self._numbers), operation, files, told)

    async def _ready(self) -> _Process:
        async with self._starting:
            if self._process is None or self._process.is_closed:
                self._process = await self._start()
            return self._process

    async def _start(self) -> _Process:
        import subprocess  # not before there is something to ask

        ours, theirs = socket.socketpair()
        with theirs:
            try:
                started = await trio.lowlevel.open_process(
                    spawning.command(self._module, str(theirs.fileno())),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    cwd="/",
                    env=spawning.environment(os.environ),
                    start_new_session=True,
                )
            except BaseException as exc:
                ours.close()
                if isinstance(exc, OSError):
                    raise WorkerDied(f"{self.name}: cannot be started: {exc.strerror}") from exc
                raise
        process = _Process(self, started, ours)
        self._nursery.start_soon(process.serve)
        with trio.CancelScope(shield=True):  # else one would run that nobody asks
            await process.send(Start(self._settings, logging.getLogger("layerfs").getEffectiveLevel()))
        return process
