"""What fits a terminal: its size, what it can draw, texts that are shortened or broken to it.

Where no terminal is, for a pipe or a file, nothing is shortened: programs read it.
"""

import os
import sys
from typing import Final, Protocol, TextIO

_DEFAULT: Final = (80, 24)
_LEAST: Final = 8
"""Columns of a text that is shortened; with less it says nothing."""


def columns() -> int:
    """Return how wide the terminal is, 80 columns where there is none."""
    import shutil  # brings bz2 and lzma

    return shutil.get_terminal_size(_DEFAULT).columns


def size(stream: TextIO) -> os.terminal_size | None:
    """Return columns and lines of the terminal that *stream* is; None if it is none.

    COLUMNS and LINES are stronger, as for other programs. 80 by 24 if nobody knows.
    """
    if not stream.isatty():
        return None
    found: tuple[int, int] = os.get_terminal_size(stream.fileno())
    said = (os.environ.get("COLUMNS", ""), os.environ.get("LINES", ""))
    wide, high = (
        int(text) if text.isdecimal() and int(text) else number or default
        for text, number, default in zip(said, found, _DEFAULT, strict=True)
    )
    return os.terminal_size((wide, high))


def is_dumb() -> bool:
    """Say whether the terminal can only write lines, one below the other."""
    return os.environ.get("TERM", "dumb") in ("", "dumb", "unknown")


def drawable(stream: TextIO) -> tuple[int, int] | None:
    """Return columns and lines of the terminal that *stream* is; None if nothing can be drawn on it."""
    found = size(stream)
    return None if found is None or is_dumb() else (found.columns, found.lines)


def draws_unicode() -> bool:
    """Say whether the locale has more than ASCII; Python's own UTF-8 mode says nothing of the terminal."""
    import locale

    return locale.getencoding().lower().replace("-", "") == "utf8"


def width_of(text: str) -> int:
    """Return how many columns *text* takes, which is printable."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        2 if unicodedata.east_asian_width(char) in "WF" else not unicodedata.combining(char) for char in text
    )


class Shorten(Protocol):
    """How a text is brought down to some columns."""

    def __call__(self, text: str, width: int) -> str:
        """Return *text* in at most *width* columns, or in eight if that is less."""


def cut(text: str, width: int) -> str:
    """Return the beginning of *text*."""
    width = max(width, _LEAST)
    if width_of(text) <= width:
        return text
    mark = _ellipsis()
    return _begin(text, width - len(mark)) + mark


def squeeze(text: str, width: int) -> str:
    """Return both ends of *text*: of a path or a reference the last part says most."""
    width = max(width, _LEAST)
    if width_of(text) <= width:
        return text
    mark = _ellipsis()
    behind = (width - len(mark)) * 2 // 3
    end = _begin(text[::-1], behind)[::-1]
    return _begin(text, width - len(mark) - width_of(end)) + mark + end


def _ellipsis() -> str:
    return "…" if draws_unicode() else "..."


def _begin(text: str, width: int) -> str:
    taken = 0
    for number, char in enumerate(text):
        taken += width_of(char)
        if taken > width:
            return text[:number]
    return text


def wrapped(text: str, width: int, indent: str = "", behind: str | None = None) -> list[str]:
    """Return *text* as lines of at most *width* columns, the first behind *indent*, others behind *behind*.

    Options and paths stay in one piece: a word that is too long sticks out.
    """
    import textwrap

    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent if behind is None else behind,
        break_long_words=False,
        break_on_hyphens=False,
    )


def output_width() -> int | None:
    """Return how wide standard output is; None if it is no terminal."""
    found = size(sys.stdout)
    return found.columns if found else None
