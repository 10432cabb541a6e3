"""The tables of layers in memory: those used last, of so many bytes at most, however many layers there are.

Not thread-safe: it belongs to the thread of the kernel edge.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from typing import Final

from layerfs.layer.lost import Lost
from layerfs.layer.merge import LayerMarks, marks_of
from layerfs.layer.tables import FEW, Tables, lost_at

KEPT_BYTES: Final = 32 << 20
"""Twice the default of ``max_record_bytes``; reading a table of that size takes some milliseconds."""

_EACH: Final = 1000
"""Bytes of a layer without any, about."""
_SET_FACTOR: Final = 40
"""How many times as large as a small table the set of its paths may be, if they are very short."""

ReadTables = Callable[[], Tables]
"""Reads the tables of one layer. Raises NotInStore, StoreDamaged."""


class LoadedTables:
    """What the record of one layer lists."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        sizes = map(len, (tables.whiteouts, tables.opaques, tables.implied))
        self.size = len(tables.lost) + _EACH + sum(n * _SET_FACTOR if n <= FEW else n for n in sizes)
        """Bytes of memory, rather too many."""

    @cached_property
    def marks(self) -> LayerMarks:
        """What the layer's markers hide."""
        return marks_of(self._tables)

    def lost(self, path: bytes) -> Lost | None:
        """Return what the disk could not hold of *path*."""
        return lost_at(self._tables.lost, path)


class TableCache:
    """Tables by layer; the one used last stays, whatever its size."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._most = most
        self._size = 0
        self._loaded: OrderedDict[bytes, LoadedTables] = OrderedDict()

    def get(self, name: bytes, read: ReadTables) -> LoadedTables:
        """Return the tables of the layer *name*. Raises what *read* does."""
        found = self._loaded.get(name)
        if found is not None:
            self._loaded.move_to_end(name)
            return found
        found = LoadedTables(read())
        self._loaded[name] = found
        self._size += found.size
        while self._size > self._most and len(self._loaded) > 1:
            self._size -= self._loaded.popitem(last=False)[1].size
        return found
