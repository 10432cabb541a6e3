"""Which bytes of a blob are asked for: runs of bytes, what is here of them, what one request brings. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

GAP_MAX: Final = 64 << 10
"""Bytes between two wanted runs that cost less than a second request (facts: a request is 20 ms or more)."""
WORTH: Final = 1 << 20
"""Bytes that must be here in a row for a download of the whole to pass over them: it ends one request for
that and begins another."""


class Span(NamedTuple):
    """Bytes of a blob: from *start* to before *end*."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """How many they are."""
        return self.end - self.start


def merged(spans: Iterable[Span], gap: int = 0) -> list[Span]:
    """Return *spans* in order, as few as possible; those that are at most *gap* bytes apart become one."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.start <= found[-1].end + gap:
            found[-1] = Span(found[-1].start, max(found[-1].end, span.end))
        elif span.size:
            found.append(span)
    return found


def missing(wanted: Iterable[Span], here: Iterable[Span]) -> list[Span]:
    """Return what *here* lacks of *wanted*, in order."""
    held = merged(here)
    found: list[Span] = []
    for span in merged(wanted):
        start = span.start
        for one in held:
            if one.end <= start or one.start >= span.end:
                continue
            if one.start > start:
                found.append(Span(start, one.start))
            start = max(start, one.end)
        if start < span.end:
            found.append(Span(start, span.end))
    return found


def requests(wanted: Iterable[Span], here: Iterable[Span], most: int) -> list[Span]:
    """Return the ranges to ask for, each of at most *most* bytes, so that all of *wanted* is here."""
    return [
        Span(start, min(start + most, span.end))
        for span in merged(missing(wanted, here), GAP_MAX)
        for start in range(span.start, span.end, most)
    ]


class Readahead:
    """How far behind what is wanted of one blob a request goes on: twice as far each time that pays. Pure.

    Whoever reads file after file in the order of the blob asks for the next before long; whoever picks files
    here and there is asked for nothing more. Whoever reads in another order has read a large share some day.
    """

    FIRST: Final = 512 << 10
    MUCH: Final = 1 << 20
    MOST: Final = 8 << 20
    SHARE: Final = 8
    """Who has asked for an eighth of a blob wants all of it."""

    def __init__(self) -> None:
        self._last = self._end = -(1 << 62)
        self._window = 0
        self._asked = 0
        self._is_much = False

    @property
    def is_all_wanted(self) -> bool:
        """Whether so much was read, or so much in the order of the blob, that all of it is."""
        return self._is_much or self._window >= self.MUCH

    def extended(self, wanted: Span, size: int) -> Span:
        """Return *wanted* and as much behind it as may be wanted next, in a blob of *size* bytes."""
        self._asked += wanted.size
        self._is_much |= self._asked >= max(self.MUCH, size // self.SHARE)
        if self._last <= wanted.start <= self._end + max(self._window, GAP_MAX):
            if wanted.end > self._end:  # else what was brought was not all used, for whatever reason
                self._window = min(max(2 * self._window, self.FIRST), self.MOST)
        else:
            self._window = 0
        self._last = wanted.start
        self._end = max(self._end if self._window else 0, min(wanted.end + self._window, size))
        return Span(wanted.start, self._end)


def ahead(offset: int, size: int, here: Sequence[Span]) -> tuple[Span | None, int]:
    """Say how a download of *size* bytes that is at *offset* goes on.

    Returns the bytes that are here and can be taken now, or None, and where the next request ends.
    """
    runs = [span for span in merged(here) if span.end > offset and span.size >= WORTH]
    if runs and runs[0].start <= offset:
        return Span(offset, min(runs[0].end, size)), size
    return None, min((run.start for run in runs), default=size)
