"""Sorted tables of paths: what is looked up in them is what was put in."""

from hypothesis import given
from hypothesis import strategies as st

from layerfs.layer.lost import Lost
from layerfs.layer.merge import marks_of
from layerfs.layer.tables import PathSet, Tables, lost_at, lost_row, lost_rows, path_table

NAMES = st.binary(min_size=1, max_size=3).filter(lambda name: not {0, 0x2F} & {*name})
PATHS = st.lists(NAMES | st.sampled_from([b"a", b"\t", b".wh.a", b".wh.b"]), max_size=3).map(b"/".join)
LOST = st.builds(
    Lost,
    mode=st.none() | st.integers(0, 0o7777),
    owner=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    xattrs=st.dictionaries(st.just(b"user.\t \n="), st.binary(max_size=5), max_size=1),
)


@given(st.sets(PATHS, max_size=20), PATHS)
def test_a_table_holds_the_paths_that_were_put_in_and_no_other(paths: set[bytes], other: bytes) -> None:
    table = PathSet(path_table(paths))

    assert list(table) == sorted(paths)
    assert len(table) == len(paths)
    assert all(path in table for path in paths)
    assert (other in table) == (other in paths)


@given(st.dictionaries(PATHS, LOST, max_size=20), PATHS)
def test_what_is_lost_is_found_by_path(lost: dict[bytes, Lost], other: bytes) -> None:
    table = b"".join(lost_row(path, str(lost[path])) for path in sorted(lost))

    assert dict(lost_rows(table)) == lost
    assert all(lost_at(table, path) == one for path, one in lost.items())
    assert lost_at(table, other) == lost.get(other)


@given(st.sets(NAMES, max_size=9), st.sets(PATHS, max_size=9), st.sets(PATHS, max_size=9), PATHS)
def test_large_tables_hide_what_small_ones_do(
    names: set[bytes], opaques: set[bytes], implied: set[bytes], path: bytes
) -> None:
    markers = {b".wh." + name for name in names if name not in (b".", b"..")}
    found = Tables(path_table(markers), path_table(opaques), path_table(implied))
    small, large = marks_of(found), marks_of(found, few=-1)

    assert isinstance(large.implied, PathSet)
    for hidden in (path, *names):
        assert (hidden in large.hidden) == (hidden in small.hidden)
    assert {*large.hidden} == small.hidden
    assert {*large.markers} == {*small.markers}
    assert (path in large.opaque, path in large.implied) == (path in opaques, path in implied)


def test_a_table_takes_part_in_set_algebra() -> None:
    table = PathSet(path_table({b"a", b"b"}))

    assert table | {b"c"} == {b"a", b"b", b"c"}
    assert table & {b"b", b"c"} == {b"b"}


def test_large_tables_count_what_small_ones_do() -> None:
    tables = Tables(whiteouts=path_table({b".wh.a", b"d/.wh.b"}), opaques=path_table({b"d"}))
    large, small = marks_of(tables, few=0), marks_of(tables)

    assert len(large.hidden) == len(small.hidden) == 2
    assert len(large.markers) == len(small.markers) == 3
    for path, there in ((b".wh.a", True), (b"d/.wh..wh..opq", True), (b".wh..wh..opq", False)):
        assert (path in large.markers) is (path in small.markers) is there
    assert b"d/b" in large.hidden
    text: object = "d/b"
    assert text not in large.hidden, "a path is bytes"
