"""The fifth table of a record: what is written is found again, without reading all of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import InvalidToc
from layerfs.layer.contents import content_row, contents_by_id, find_row, parse_row, rows_of
from layerfs.layer.toc import Content, Piece
from layerfs.oci import Digest


def content(name: bytes, pieces: int = 1) -> Content:
    """Return a content of some pieces, named by *name*."""
    digest = str(Digest.of(name))
    parts = [Piece(at * 10, at * 10 + 9, at % 2, at * 5, 5, digest) for at in range(pieces)]
    return Content(digest, 5 * pieces, parts)


@given(st.dictionaries(st.binary(max_size=8), st.integers(1, 300), max_size=60), st.binary(max_size=8))
def test_each_row_is_found_and_nothing_else_is(sizes: dict[bytes, int], other: bytes) -> None:
    made = contents_by_id((one.id, one) for name, size in sizes.items() for one in [content(name, size)])
    table = b"".join(content_row(id_, one) for id_, one in made)

    def read(offset: int, size: int) -> bytes:
        return table[offset : offset + size]

    assert [parse_row(row) for row in rows_of(read, len(table))] == made
    for id_, one in made:
        row = find_row(read, len(table), id_)
        assert row is not None
        assert parse_row(row) == (id_, one)
    if other not in sizes:
        assert find_row(read, len(table), Digest.of(other).object_id) is None


def test_one_of_many_is_found_with_few_looks() -> None:
    made = contents_by_id((one.id, one) for number in range(5000) for one in [content(b"%d" % number)])
    table = b"".join(content_row(id_, one) for id_, one in made)
    looks = []

    def read(offset: int, size: int) -> bytes:
        looks.append(size)
        return table[offset : offset + size]

    for id_, _ in made[::500]:
        looks.clear()
        assert find_row(read, len(table), id_) is not None
        assert sum(looks) < len(table) / 5


def test_one_digest_of_two_sizes_is_refused() -> None:
    one, other = content(b"a"), content(b"a", 2)
    with pytest.raises(InvalidToc, match="5 and of 10 bytes"):
        contents_by_id([(one.id, one), (other.id, other)])


def test_a_table_that_is_cut_off_ends_there() -> None:
    one = content(b"a")
    table = content_row(one.id, one)[:-1]

    def read(offset: int, size: int) -> bytes:
        return table[offset : offset + size]

    assert list(rows_of(read, len(table) + 1)) == []
    assert find_row(read, len(table), one.id) == table
