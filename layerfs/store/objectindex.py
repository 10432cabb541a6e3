"""Which objects the skeletons of a store name, and where in their blobs these lie: kept in memory.

The tables that say so (`layerfs.layer.contents`) are tens of megabytes for a large layer. What is kept of a
content is its id, and once somebody reads file after file, where its bytes begin: 22 and 16 bytes.
"""

import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

import msgspec

from layerfs.errors import NotInStore, StoreDamaged
from layerfs.layer.contents import Read, parse_row, row_at, rows_of
from layerfs.layer.toc import Content
from layerfs.oci import Digest

ID_LENGTH: Final = 22

OpenTable = Callable[[Digest], AbstractContextManager[tuple[Read, int]]]
"""Opens the table of a skeleton. Raises NotInStore, StoreDamaged."""


class _Index(msgspec.Struct):
    """What is kept of one skeleton."""

    identity: object
    """That of the directory it is of: another one may say something else."""
    ids: bytes
    """All of its objects, sorted."""
    places: tuple["array[int]", "array[int]"] | None = None
    """Where in the blob contents begin, sorted, and where in the table their rows do."""

    def names(self, id_: str) -> bool:
        """Say whether one of its objects is *id_*."""
        wanted = id_.encode("ascii")

        def at(number: int) -> bytes:
            return self.ids[number * ID_LENGTH : (number + 1) * ID_LENGTH]

        number = bisect_left(range(len(self.ids) // ID_LENGTH), wanted, key=at)
        return at(number) == wanted


class ObjectIndexes:
    """Those of one store. *identify* says which directory a skeleton is now, or None. Thread-safe."""

    def __init__(self, open_table: OpenTable, identify: Callable[[Digest], object]) -> None:
        self._open = open_table
        self._identify = identify
        self._known: dict[Digest, _Index] = {}
        self._mutex = threading.Lock()

    def names(self, toc: Digest, id_: str) -> bool | None:
        """Say whether a skeleton that is here names an object, reading no file; None until `load` has."""
        identity = self._identify(toc)
        index = self._known.get(toc)
        if index is not None and index.identity == identity:
            return index.names(id_)
        self._known.pop(toc, None)
        return False if identity is None else None

    def load(self, toc: Digest) -> None:
        """Have at hand what a skeleton names: nothing if it is damaged. Blocking."""
        self._loaded(toc)

    def after(self, toc: Digest, begin: int, end: int) -> Iterator[Content]:
        """Yield the contents of a skeleton whose bytes begin in [*begin*, *end*) of the blob, in order.

        Blocking. Raises NotInStore, StoreDamaged.
        """
        begins, starts = self._places(toc)
        with self._open(toc) as (read, _):
            for number in range(bisect_left(begins, begin), bisect_left(begins, end)):
                try:
                    yield parse_row(row_at(read, starts[number]))[1]
                except ValueError as exc:
                    raise StoreDamaged(f"skeleton of {toc}: {exc} (expected a row)") from exc

    def number_after(self, toc: Digest, begin: int, end: int) -> int | None:
        """Say how many contents `after` would yield, reading no file; None until it was asked once."""
        index = self._known.get(toc)
        if index is None or index.places is None or index.identity != self._identify(toc):
            return None
        begins, _ = index.places
        return bisect_left(begins, end) - bisect_left(begins, begin)

    def _loaded(self, toc: Digest) -> _Index:
        identity = self._identify(toc)
        with self._mutex:
            index = self._known.get(toc)
            if index is None or index.identity != identity:
                index = _Index(identity, b"")
                try:
                    with self._open(toc) as (read, size):
                        index.ids = b"".join(row[:ID_LENGTH] for row in rows_of(read, size))
                except (NotInStore, StoreDamaged):
                    pass  # of one skeleton, which says nothing of the others
                self._known[toc] = index
            return index

    def _places(self, toc: Digest) -> tuple["array[int]", "array[int]"]:
        index = self._loaded(toc)
        with self._mutex:
            if index.places is None:
                found: list[tuple[int, int]] = []
                start = 0
                with self._open(toc) as (read, size):
                    for row in rows_of(read, size):
                        begin = _begin_of(toc, row)
                        if begin is not None:
                            found.append((begin, start))
                        start += len(row) + 1
                found.sort()
                index.places = array("Q", [one for one, _ in found]), array("Q", [one for _, one in found])
            return index.places


def _begin_of(toc: Digest, row: bytes) -> int | None:
    """Return where in the blob the bytes of a row's content begin; None for holes alone."""
    try:
        content = parse_row(row)[1]
    except ValueError as exc:
        raise StoreDamaged(f"skeleton of {toc}: {exc} (expected a row)") from exc
    return min((piece.offset for piece in content.pieces if piece.digest), default=None)
