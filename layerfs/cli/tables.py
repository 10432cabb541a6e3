"""How a table is brought down to the width of a terminal: columns go, then one is shortened. No I/O.

What goes first a table says itself. Below the last column that may go nothing helps: then rows are too long.
"""

from collections.abc import Sequence
from typing import Final

from layerfs.cli.terminal import squeeze, width_of

_GAP: Final = 2
_ENOUGH: Final = 36
"""Columns that the first column keeps before others go, if it has as much."""


def fitted(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, spare: Sequence[str]
) -> list[str]:
    """Return the lines of a table, its columns two spaces apart, in at most *width* columns if that is given.

    *spare* names the columns that may go, the first first; the first column of all is shortened.
    """
    table = [header, *rows]
    widths = [max(map(width_of, column)) for column in zip(*table, strict=True)]
    shown = list(range(len(header)))
    if width is not None:
        for name in spare:
            if min(widths[0], _ENOUGH) + _behind_first(widths, shown) <= width:
                break
            shown.remove(header.index(name))
        widths[0] = min(widths[0], width - _behind_first(widths, shown))
    return [_line(row, widths, shown) for row in table]


def _behind_first(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[number] + _GAP for number in shown if number)


def _line(row: Sequence[str], widths: Sequence[int], shown: Sequence[int]) -> str:
    cells = [squeeze(row[0], widths[0]), *(row[number] for number in shown if number)]
    padded = (
        cell + " " * (widths[number] - width_of(cell)) for cell, number in zip(cells, shown, strict=True)
    )
    return (" " * _GAP).join(padded).rstrip()
