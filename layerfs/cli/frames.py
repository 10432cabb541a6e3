"""What a pull shows of itself, as lines that fit a terminal. Decides from values; no I/O, no clock.

In front what all of it has come to, then the layers that are worked on. Those that wait for their turn are
counted, those that are done are gone.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from layerfs.oci.image import ImageLayer
from layerfs.status import Phase
from layerfs.view.texts import human_size

_WINDOW: Final = 3.0
"""Seconds that a speed is measured over."""
_SHORTEST: Final = 0.5
"""Seconds; what is measured over less is no speed."""
_BAR: Final = range(6, 41)
"""Columns of a bar; with less there is none."""
_ECHO: Final = 2
"""Columns that stay free: a terminal writes ``^C`` there, and must not break the line."""


class Speed:
    """Bytes a second, of the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def measured(self, now: float, received: int) -> float | None:
        """Take in that *received* bytes are there; return the speed, None while it cannot be known."""
        samples = self._samples
        if samples and received < samples[-1][1]:  # began again
            samples.clear()
        samples.append((now, received))
        while now - samples[0][0] > _WINDOW and len(samples) > 2:
            samples.popleft()
        seconds = now - samples[0][0]
        return (received - samples[0][1]) / seconds if seconds >= _SHORTEST else None


class LayerState(msgspec.Struct, frozen=True):
    """How far one layer is."""

    layer: ImageLayer
    phase: Phase
    received: int = 0
    speed: float | None = None

    @property
    def is_underway(self) -> bool:
        """Whether something of it is there already, and not all is done."""
        return self.phase not in ("done", "queued") or self.received > 0

    def word(self) -> str:
        """Return what happens to it."""
        return "waiting" if self.phase == "queued" else self.phase


def totals(states: Sequence[LayerState], speed: float | None) -> str:
    """Return what all layers have come to, as one line."""
    return ", ".join((_counted(states), _amount(*_bytes(states)), _per_second(speed)))


def frame(
    states: Sequence[LayerState], speed: float | None, columns: int, lines: int, *, unicode: bool
) -> list[str]:
    """Return what is shown on a terminal of *columns* and *lines*; *speed* is that of all layers."""
    width = columns - _ECHO
    rows = [one for one in states if one.phase != "done" and one.is_underway]
    rows.sort(key=lambda one: (one.phase == "queued", one.layer.number))
    room = max(lines - 2, 1)  # beside the line in front, and that of the cursor
    hidden = len(rows) - room + 1 if len(rows) > room else 0
    shown = rows[: len(rows) - hidden]
    amounts = max((len(_amount(one.received, one.layer.size)) for one in shown), default=0)
    received, size = _bytes(states)
    amount = _amount(received, size)
    head = [
        ([_counted(states), "", amount, _per_second(speed)], 1),
        ([_counted(states), amount], 0),
        ([_counted(states).partition(",")[0], amount], 0),
        ([amount], 0),
    ]
    return [
        _fitting(head, received, size, width, unicode=unicode),
        *(_row(one, amounts, width, unicode=unicode) for one in shown),
        *([f"and {hidden} more"] if hidden else []),
    ]


def _row(one: LayerState, amounts: int, width: int, *, unicode: bool) -> str:
    layer = one.layer
    number, label = f"{layer.number:02d}", f"{layer.number:02d} {layer.digest.shown}"
    amount = f"{_amount(one.received, layer.size):>{amounts}}"
    speed = f"{_per_second(one.speed if one.phase == 'downloading' else None):>10}"
    word = f"{one.word():<11}"
    forms = [
        ([label, "", amount, speed, word], 1),
        ([label, amount, speed, word], 0),
        ([number, "", amount, word], 1),
        ([number, amount, word], 0),
        ([number, word], 0),
    ]
    return _fitting(forms, one.received, layer.size, width, unicode=unicode)


def _fitting(
    forms: Sequence[tuple[list[str], int]], received: int, size: int, width: int, *, unicode: bool
) -> str:
    """Return the first form that fits. Its number says which of its parts is a bar; 0: none."""
    for parts, bar in forms:
        room = width - len("  ".join(parts))
        if bar and room >= _BAR[0]:
            parts = [*parts]
            parts[bar] = _bar(received, size, min(room, _BAR[-1]), unicode=unicode)
        if room >= (_BAR[0] if bar else 0):
            return "  ".join(parts).rstrip()
    return "  ".join(forms[-1][0])[:width]


def _bar(received: int, size: int, width: int, *, unicode: bool) -> str:
    done = width * received // size if size else width
    full, empty = ("━", "─") if unicode else ("#", ".")
    return full * done + empty * (width - done)


def _bytes(states: Sequence[LayerState]) -> tuple[int, int]:
    """Return how many bytes are there, of how many."""
    received = sum(one.layer.size if one.phase == "done" else one.received for one in states)
    return received, sum(one.layer.size for one in states)


def _counted(states: Sequence[LayerState]) -> str:
    done = sum(one.phase == "done" for one in states)
    waiting = sum(one.phase == "queued" for one in states)
    return f"{done} of {len(states)} layers" + (f", {waiting} waiting" if waiting else "")


def _amount(received: int, size: int) -> str:
    return f"{human_size(received)} of {human_size(size)}"


def _per_second(speed: float | None) -> str:
    return "-" if speed is None else f"{human_size(int(speed))}/s"
