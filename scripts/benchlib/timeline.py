"""A graph of requests over time, as SVG: a stair for each row, and a dot where its first process ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

_WIDTH: Final = 800
_HEIGHT: Final = 360
_LEFT: Final = 60
_TOP: Final = 40
_BELOW: Final = 40
_LEGEND: Final = 18
_COLOURS: Final = ("#1b6ca8", "#d1495b", "#3a7d44", "#8a5a00", "#5c4d9a")
_TICKS: Final = 5


@dataclass(frozen=True, slots=True)
class Line:
    """What one row asked of the registry."""

    name: str
    asked: Sequence[float]
    """Seconds from the start to each request, in order."""
    end: float
    """Seconds from the start to the end of the first process."""


def timeline(title: str, lines: Sequence[Line]) -> str:
    """Return the graph of *lines*, of which at least one has an end after its start."""
    seconds = max(line.end for line in lines)
    most = max(1, *(len(line.asked) for line in lines))

    def x(second: float) -> float:
        return _LEFT + (_WIDTH - 2 * _LEFT) * second / seconds

    def y(count: float) -> float:
        return _TOP + _HEIGHT * (1 - count / most)

    height = _TOP + _HEIGHT + _BELOW + _LEGEND * (len(lines) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="{_TOP - 16}" font-size="14">{escape(title)}: requests over seconds</text>',
        f'<path d="M{_LEFT} {_TOP}V{y(0):.1f}H{x(seconds):.1f}" fill="none" stroke="black"/>',
    ]
    for tick in range(_TICKS + 1):
        second, count = seconds * tick / _TICKS, most * tick / _TICKS
        parts += [
            f'<text x="{x(second):.1f}" y="{y(0) + 18:.1f}" text-anchor="middle">{second:.1f}</text>',
            f'<text x="{_LEFT - 8}" y="{y(count) + 4:.1f}" text-anchor="end">{count:.0f}</text>',
        ]
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        stairs = "".join(f"H{x(when):.1f}V{y(count):.1f}" for count, when in enumerate(line.asked, start=1))
        end, legend = x(line.end), _TOP + _HEIGHT + _BELOW + _LEGEND * (number + 1)
        parts += [
            f'<path d="M{x(0):.1f} {y(0):.1f}{stairs}H{end:.1f}" fill="none" stroke="{colour}" '
            'stroke-width="1.5"/>',
            f'<circle cx="{end:.1f}" cy="{y(len(line.asked)):.1f}" r="4" fill="{colour}"/>',
            f'<text x="{_LEFT}" y="{legend}" fill="{colour}">{escape(line.name)}: {line.end:.2f} s, '
            f"{len(line.asked)} requests</text>",
        ]
    return "\n".join([*parts, "</svg>", ""])
