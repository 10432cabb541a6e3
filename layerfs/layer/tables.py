"""What a record lists, as sorted tables of bytes: no object for each entry, however many an image has.

A table is its rows one after another, each ended by a NUL, which no path holds. A row is looked up by
bisection, so a table that came from a file is of use as it is: nothing is decoded. Pure.
"""

from collections.abc import Iterable, Iterator, Set
from typing import Any, Final

import msgspec

from layerfs.layer.lost import Lost

END: Final = b"\0"
"""Ends a row."""

_VALUE: Final = b"\t"
"""Begins what a row says of its path. A path may hold it, the text of a `Lost` does not."""

FEW: Final = 8 << 10
"""Bytes of a table up to which its paths are kept as a set, which answers ten times as fast."""


class Tables(msgspec.Struct, frozen=True):
    """The lists of one layer. Paths are relative, the root is empty, rows are sorted by path."""

    whiteouts: bytes = b""
    """Paths of the markers ``dir/.wh.name``; reserved ``.wh..wh.*`` names too, the opaque not."""
    opaques: bytes = b""
    """Directories that hold ``.wh..wh..opq``."""
    implied: bytes = b""
    """Directories without an entry of their own."""
    lost: bytes = b""
    """What the filesystem could not carry: a path, a tab, and the text of a `layerfs.layer.lost.Lost`."""


class PathSet(Set[bytes]):
    """A table of paths as a set."""

    __slots__ = ("_table",)

    def __init__(self, table: bytes) -> None:
        self._table = table

    @classmethod
    def _from_iterable(cls, paths: Iterable[Any]) -> frozenset[Any]:
        return frozenset(paths)

    def __contains__(self, path: object) -> bool:
        return isinstance(path, bytes) and _find(self._table, path, END) is not None

    def __iter__(self) -> Iterator[bytes]:
        return rows(self._table)

    def __len__(self) -> int:
        return self._table.count(END)


def rows(table: bytes) -> Iterator[bytes]:
    """Yield the rows of *table*, without what ends them."""
    start = 0
    while (end := table.find(END, start)) >= 0:
        yield table[start:end]
        start = end + 1


def paths_in(table: bytes, few: int = FEW) -> Set[bytes]:
    """Return the paths of *table*, as a set of their own if these are at most *few* bytes."""
    return frozenset(table.split(END)[:-1]) if len(table) <= few else PathSet(table)


def path_row(path: bytes) -> bytes:
    """Return the row of *path* in a table of paths."""
    return path + END


def path_table(paths: Iterable[bytes]) -> bytes:
    """Return the table of *paths*."""
    return b"".join(map(path_row, sorted(set(paths))))


def lost_row(path: bytes, text: str) -> bytes:
    """Return the row of *path* in `Tables.lost`; *text* is what `Lost` says of itself."""
    return path + _VALUE + text.encode("utf-8") + END


def lost_at(table: bytes, path: bytes) -> Lost | None:
    """Return what the table `Tables.lost` says of *path*; only this row is parsed, of maybe a million."""
    text = _find(table, path, _VALUE) if table else None
    return None if text is None else Lost.parse(text.decode("utf-8"))


def lost_rows(table: bytes) -> Iterator[tuple[bytes, Lost]]:
    """Yield all that the table `Tables.lost` says."""
    for row in rows(table):
        path, _, text = row.rpartition(_VALUE)
        yield path, Lost.parse(text.decode("utf-8"))


def _find(table: bytes, path: bytes, parted_by: bytes) -> bytes | None:
    """Return what follows *path* in its row, None if there is no such row."""
    low, high = 0, len(table)
    while low < high:
        middle = (low + high) // 2
        start = max(low, table.rfind(END, low, middle) + 1)
        end = table.index(END, middle)
        row = table[start:end]
        key, _, value = row.rpartition(parted_by) if parted_by is _VALUE else (row, b"", b"")
        if key == path:
            return value
        if key < path:
            low = end + 1
        else:
            high = start
    return None
