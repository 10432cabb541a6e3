"""A pull that a running daemon of the same store does: the command's end, before anything else is imported.

The daemon says what to write, and this writes it. What cannot be written, and whatever else goes wrong, has
the command go on by itself, which then meets the same, and says so as it always does.
"""

import os
import sys
from typing import TYPE_CHECKING, Final

import layerfs
from layerfs.cli import interrupts
from layerfs.delegation.asking import Channel, asked
from layerfs.delegation.wire import (
    COMPLAINT,
    DRAWING,
    END,
    NOTE,
    OUTPUT,
    WORDS_MAX,
    PullRequest,
    ScreenSize,
    variables_of,
    wanted,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from layerfs.cli.resumption import Heard
    from layerfs.cli.screen import Draw

VERSION: Final = f"{layerfs.__version__} {layerfs.__file__}"
"""Names this code: both ends have to mean the same by what they say."""


def pull(words: list[str]) -> "Heard | None":
    """Have a daemon do ``layerfs pull`` with *words*, and exit as it says.

    Returns what it has said if it ended before; None if there is none that does it. Raises Interrupted.
    """
    if wanted(words) is None or len(words) > WORDS_MAX or not _streams_are_open():
        return None
    with interrupts.undoing():
        request = PullRequest(VERSION, _screen(), tuple(words), variables_of(os.environ)).packed()
        channel = asked(request, os.environ)
        if channel is None:
            return None
        relay = _Relay(channel)
        try:
            code = relay.run()
        except interrupts.Interrupted:
            relay.stop_drawing()
            channel.call_off()
            raise
        finally:
            channel.close()
    if code is None:
        return relay.heard()
    sys.exit(code)


def _streams_are_open() -> bool:
    """Say whether no file that is opened can become a standard stream (`layerfs.cli.streams`)."""
    try:
        for number in (0, 1, 2):
            os.fstat(number)
    except OSError:
        return False
    return sys.stdout is not None and sys.stderr is not None


def _screen() -> ScreenSize:
    if not (os.isatty(1) or os.isatty(2)):
        return ScreenSize()
    from layerfs.cli import terminal

    drawable = terminal.drawable(sys.stderr) or (0, 0)
    return ScreenSize(terminal.output_width() or 0, *drawable, terminal.draws_unicode())


class _Relay:
    """Writes what a daemon says, and remembers it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._notes: list[bytes] = []
        self._written: dict[bytes, list[str]] = {OUTPUT: [], COMPLAINT: []}
        self._drawing: AbstractContextManager[Draw] | None = None
        self._draw: Draw | None = None
        self._size: tuple[int, int] | None = None

    def run(self) -> int | None:
        """Return the exit code; None if the daemon stops in the middle, or cannot be listened to."""
        for kind, payload in self._channel.frames():
            if kind == END:
                return payload[0] if payload else None
            if kind == NOTE:
                self._notes.append(payload)
            elif kind == DRAWING:
                self._show(payload)
            elif kind in self._written and not self._write(kind, payload.decode()):
                break
        self.stop_drawing()
        return None

    def heard(self) -> "Heard":
        """Return what was written, and what is to be known."""
        import layerfs.spared  # noqa: F401 - before anything imports msgspec
        from layerfs.cli.resumption import Heard

        return Heard(self._notes, self._written[OUTPUT], self._written[COMPLAINT])

    def stop_drawing(self) -> None:
        """Take away what is drawn."""
        drawing, self._drawing, self._draw = self._drawing, None, None
        if drawing is not None:
            drawing.__exit__(None, None, None)

    def _write(self, kind: bytes, text: str) -> bool:
        """Write lines; False if standard output does not take them."""
        stream = sys.stdout if kind == OUTPUT else sys.stderr
        line = f"{text}\n"
        try:
            if self._drawing is not None:  # below what is drawn
                stream.write(line)
                stream.flush()
            else:
                rest = memoryview(line.encode(stream.encoding, "backslashreplace"))
                while rest:
                    rest = rest[os.write(1 if kind == OUTPUT else 2, rest) :]
        except OSError:
            if kind == OUTPUT:
                return False
        self._written[kind].append(text)
        return True

    def _show(self, payload: bytes) -> None:
        if not payload:
            self.stop_drawing()
            return
        from layerfs.cli import terminal
        from layerfs.cli.screen import OWN

        if self._draw is None:
            self._drawing = OWN.drawing()
            self._draw = self._drawing.__enter__()
        self._draw(payload.decode().split("\n"))
        size = terminal.drawable(sys.stderr)
        if size is not None and size != self._size:
            self._size = size
            self._channel.resized(*size)
