"""Into the background, and word back: the parent returns when the child is ready, or says why it is not.

The fork happens before trio or pyfuse3 is there, since neither survives one. Word goes through a pipe: an
end of file without a word means that the child died.
"""

import os
import signal
import sys
from collections.abc import Callable

_READY = b"ready"
_LIMIT = 64 << 10
_INTERRUPTS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def run_in_background(work: Callable[[Callable[[], None]], None]) -> str | None:
    """Fork; the child runs *work* in a session of its own and never returns from here.

    *work* is given ``ready``, to be called once it serves; an exception it raises ends the child. In the
    parent return None once the child is ready, or the text of what went wrong, once it has ended: what it had
    open, a mountpoint for instance, is nobody's then. Raises OSError.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    # What a signal raised while fork(2) goes on would be lost: Python runs code of its modules there.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    if child := os.fork():
        os.close(writer)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            failure = _hear(reader)
        except BaseException:
            os.kill(child, signal.SIGTERM)
            raise
        if failure is not None:
            os.waitpid(child, 0)
        return failure
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(reader)
    os.setsid()
    status = 1
    try:
        _detach_stdin()
        work(lambda: _say(writer, _READY))
        status = 0
    except BaseException as error:  # noqa: BLE001 - the last frame of the child; told to the parent
        _say(writer, str(error).encode(errors="replace")[:_LIMIT] or type(error).__name__.encode())
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


def _hear(reader: int) -> str | None:
    with open(reader, "rb") as pipe:
        word = pipe.read(_LIMIT)
    if word == _READY:
        return None
    return word.decode(errors="replace") or "the daemon ended without a word; see its log"


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
