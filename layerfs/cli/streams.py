"""The three standard streams, whatever they are when the program starts: closed, full, or read by nobody.

A closed one becomes /dev/null before anything is opened: the next file, a blob or a lock, would get its
number, and text for people would be written into it. Standard output that takes no more is an error of ours,
and what cannot be said on stderr is not said.
"""

import os
import sys
from errno import EPIPE
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any, TextIO

from layerfs.errors import OutputLost, ReaderGone


def prepare() -> None:
    """Put streams into `sys` that hold what this module says."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for good
    sys.stdout = _text(sys.stdout, _Output(1, "w", closefd=False))
    sys.stderr = _text(sys.stderr, _Complaints(2, "w", closefd=False))


def _text(found: TextIO | None, raw: FileIO) -> TextIOWrapper:
    encoding = None if found is None else found.encoding
    lines = raw.fileno() == 2 or raw.isatty()
    # Names may hold characters that the terminal's encoding has not: better an escape than no answer.
    return TextIOWrapper(BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=lines)


class _Output(FileIO):
    """Standard output; behind its first failure nothing more is tried, not even at the end."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as exc:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            if exc.errno == EPIPE:
                raise ReaderGone("standard output: its reader has ended") from exc
            raise OutputLost(f"standard output: {exc.strerror}") from exc


class _Complaints(FileIO):
    """Standard error; a failure to complain is nobody's failure."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)
