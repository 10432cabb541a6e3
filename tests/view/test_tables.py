"""Tables of layers in memory: read once, and those used last stay."""

from collections import Counter

from layerfs.layer.tables import FEW, Tables
from layerfs.view.tables import ReadTables, TableCache


def test_the_tables_used_last_stay_in_memory() -> None:
    reads: Counter[bytes] = Counter()
    large = Tables(lost=b"x" * (FEW * 4))

    def reader(name: bytes) -> ReadTables:
        def read() -> Tables:
            reads[name] += 1
            return large

        return read

    cache = TableCache(most=FEW * 10)  # two of them
    for name in (b"a", b"b", b"a", b"c", b"a", b"b"):
        cache.get(name, reader(name))
    assert reads == {b"a": 1, b"b": 2, b"c": 1}


def test_the_table_used_last_stays_whatever_its_size() -> None:
    cache = TableCache(most=1)
    first, second = (cache.get(b"a", lambda: Tables(lost=b"x" * FEW)) for _ in range(2))
    assert first is second
