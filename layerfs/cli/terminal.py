"""What fits a terminal: its width, texts that are shortened or broken to it.

Where no terminal is, for a pipe or a file, nothing is shortened: programs read it.
"""

import shutil
import textwrap
from typing import Final

_DEFAULT: Final = (80, 24)


def columns() -> int:
    """Return how wide the terminal is, 80 columns where there is none."""
    return shutil.get_terminal_size(_DEFAULT).columns


def wrapped(text: str, width: int, indent: str = "", behind: str | None = None) -> list[str]:
    """Return *text* as lines of at most *width* columns, the first behind *indent*, others behind *behind*.

    Options and paths stay in one piece: a word that is too long sticks out.
    """
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent if behind is None else behind,
        break_long_words=False,
        break_on_hyphens=False,
    )
