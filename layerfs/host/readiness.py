"""Into the background, and word back: the parent returns when the child is ready, or says why it is not.

The fork happens before trio or pyfuse3 is there, since neither survives one. Word goes through a pipe: an
end of file without a word means that the child died.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn, Self

_READY = b"ready\n"
_LIMIT = 64 << 10
_INTERRUPTS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def run_in_background(work: Callable[[Callable[[], None]], None]) -> str | None:
    """Fork; the child runs *work*, once ready in a session of its own, and never returns from here.

    *work* is given ``ready``, to be called once it serves; an exception it raises ends the child. In the
    parent return None once the child is ready, or the text of what went wrong, once it has ended: what it had
    open, a mountpoint for instance, is nobody's then. Raises OSError.
    """
    with Standby(lambda ready: work(partial(ready, b"")), in_group=True) as standby:
        try:
            standby.begin()
        except NotReady as exc:
            return str(exc)
    return None


class NotReady(Exception):
    """A process that stood by ended before it was ready; the text says why."""


class Standby:
    """A process that is forked now and works if it is told to, when this one cannot fork any more.

    *work* is as `run_in_background` has it, but says a word with ``ready``. A context manager: a process that
    was told nothing ends with the block. With *in_group* it leaves the process group when it is ready, not
    before: autofs has all but the group of who mounts wait at the mountpoint, ourselves too. Raises OSError.
    """

    def __init__(self, work: Callable[[Callable[[bytes], None]], None], *, in_group: bool = False) -> None:
        gate, self._go = os.pipe()
        self._word, word = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # What a signal raised while fork(2) goes on would be lost: Python runs code of its modules there.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
        self._child = os.fork()
        if not self._child:
            os.close(self._go)
            os.close(self._word)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            _stand_by(gate, word, work, in_group=in_group)
        os.close(gate)
        os.close(word)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._go >= 0:
            os.close(self._go)
            os.close(self._word)
            os.waitpid(self._child, 0)

    def begin(self) -> bytes:
        """Have it work, once; return what it says when it is ready. Raises NotReady.

        One that is ready goes on without this process; one that is not has ended.
        """
        go, self._go = self._go, -1
        try:
            with suppress(BrokenPipeError):  # it has ended, and says nothing
                os.write(go, _READY)
            os.close(go)
            word = _hear(self._word)
        except BaseException:
            os.kill(self._child, signal.SIGTERM)
            raise
        if not word.startswith(_READY):
            os.waitpid(self._child, 0)
            raise NotReady(word.decode(errors="replace") or "the daemon ended without a word; see its log")
        return word.removeprefix(_READY)


def _stand_by(
    gate: int, word: int, work: Callable[[Callable[[bytes], None]], None], *, in_group: bool
) -> NoReturn:
    """Be the child: wait, work, end."""
    status = 1

    def say_ready(more: bytes) -> None:
        if in_group:
            os.setsid()
        _say(word, _READY + more)

    try:
        if not in_group:
            os.setsid()
        if os.read(gate, 1):
            os.close(gate)
            _detach_stdin()
            work(say_ready)
        status = 0
    except BaseException as error:  # noqa: BLE001 - the last frame of the child; told to the parent
        _say(word, str(error).encode(errors="replace")[:_LIMIT] or type(error).__name__.encode())
    finally:
        os._exit(status)


def has_terminal() -> bool:
    """Say whether this process has a controlling terminal, which sends SIGHUP when it is closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def leave_terminal() -> None:
    """Point stdout and stderr to nothing; log lines go to a file by now."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def _hear(reader: int) -> bytes:
    with open(reader, "rb") as pipe:
        return pipe.read(_LIMIT)


def _say(writer: int, word: bytes) -> None:
    try:
        os.write(writer, word)
        os.close(writer)
    except OSError:  # the parent is gone, or has heard a word already
        return


def _detach_stdin() -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
