"""How a command ends by a signal: as by Ctrl-C, and nothing stays but what the next command takes up.

SIGINT, SIGTERM and SIGHUP mean the same, unless whoever started the command ignores them, as nohup does.
Where nothing was begun the process ends at once; work that has something to undo runs in `run` or in
`undoing`. So no exception comes out of nowhere, in the middle of an import for instance. Of several signals
the first counts.
"""

import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

T = TypeVar("T")

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal ended the work, which was undone. Libraries have answers of their own to KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.code: Final = _code(number)


class _State:
    number = 0
    """The signal that ends the command; 0 for none so far."""
    end: Callable[[], object] | None = None
    """What ends the work that is going on; None while there is nothing to undo."""


def heed() -> None:
    """Let the signals end this process, from now on, as this module says."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run *work* by trio; a signal cancels it.

    Raises Interrupted once it has ended, and what *work* raises.
    """
    import trio

    async def main() -> T:
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope, _ending(lambda: token.run_sync_soon(scope.cancel)):
            if _State.number:
                scope.cancel()
            return await work()
        raise Interrupted(_State.number)

    try:
        with _ending(_note):  # before and behind `main` nothing may disturb trio
            result = trio.run(main)
    except Exception as exc:
        if _State.number:  # what failed while it was being undone is nobody's concern
            raise Interrupted(_State.number) from exc
        raise
    if _State.number:  # whatever came of the work
        raise Interrupted(_State.number)
    return result


@contextmanager
def undoing() -> Iterator[None]:
    """Have a signal raise Interrupted in the block, which undoes what it has begun."""

    def end() -> None:
        raise Interrupted(_State.number)

    with _ending(end):
        yield


@contextmanager
def finishing() -> Iterator[None]:
    """Have the block, which is short, end before a signal does. Raises Interrupted behind it then."""
    with _ending(_note):
        yield
    if _State.number:
        raise Interrupted(_State.number)


@contextmanager
def _ending(end: Callable[[], object]) -> Iterator[None]:
    before, _State.end = _State.end, end
    try:
        yield
    finally:
        _State.end = before


def _note() -> None:
    """End nothing yet: somebody looks at the number later."""


def _handle(number: int, _: object) -> None:
    if _State.number:
        return
    if _State.end is None:
        os._exit(_code(number))
    _State.number = number
    _State.end()


def _code(number: int) -> int:
    """Return the exit code that a shell gives a process which *number* ended."""
    return 128 + number
