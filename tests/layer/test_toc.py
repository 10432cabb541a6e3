"""What TOCs mean: entries to members and places of bytes."""

import string
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import InvalidLayer
from layerfs.layer.member import Type
from layerfs.layer.paths import clean
from layerfs.layer.toc import Content
from layerfs.layer.tocjson import moment
from layerfs.oci import Digest
from layerfs.oci.toc import TocKind
from tests.layer import tocs
from tests.layer.tocs import CHUNKED, END, A, B, chunk, chunked, directory, file, link, read, read_raw

SECOND = 10**9


def contents(toc: tocs.Read) -> Iterator[Content]:
    """Yield what has bytes in a TOC."""
    return (entry.content for entry in toc.entries if entry.content is not None)


def places(toc: tocs.Read) -> list[tuple[int, ...]]:
    """Return offset, end, skip, start and size of all pieces."""
    return [
        (piece.offset, piece.end, piece.skip, piece.start, piece.size)
        for content in contents(toc)
        for piece in content.pieces
    ]


def test_an_entry_is_a_member_without_content_behind_it() -> None:
    (entry,) = read(
        file(mode=0o104755, uid=5, gid=6, modtime="2023-11-14T22:13:20Z", xattrs={"user.a": "AP8="})
    ).entries

    found = entry.member
    assert (found.name, found.type, found.mode, found.uid, found.gid) == (b"file", Type.FILE, 0o4755, 5, 6)
    assert (found.size, found.stored, found.extents) == (7, 0, None)
    assert (found.mtime_ns, found.xattrs) == (1_700_000_000 * SECOND, {b"user.a": b"\0\xff"})


def test_the_end_of_a_chunk_is_where_the_next_begins_or_where_the_data_ends() -> None:
    first = file("a", chunkSize=4, chunkDigest=A)

    assert places(read(first, chunk("a", offset=200))) == [(100, 200, 0, 0, 4), (200, END, 0, 4, 3)]


def test_packed_files_share_an_end() -> None:
    toc = read(
        file("a", offset=0, innerOffset=512), file("b", offset=0, innerOffset=1536), file("c", offset=300)
    )

    assert places(toc) == [(0, 300, 512, 0, 7), (0, 300, 1536, 0, 7), (300, END, 0, 0, 7)]


def test_zstd_chunked_says_the_end_of_a_file_and_its_holes() -> None:
    toc = read(
        chunked("a", end=300, chunkSize=4, chunkDigest=A),
        chunk("a", chunkType="zeros", chunkSize=2, chunkDigest=B),
        chunk("a", offset=210, at=6),
        chunked("b", offset=400, end=401),
        kind=CHUNKED,
    )

    first = next(contents(toc))
    assert places(toc) == [(100, 200, 0, 0, 4), (200, 210, 0, 4, 2), (210, 300, 0, 6, 1), (400, 401, 0, 0, 7)]
    assert [piece.digest for piece in first.pieces] == [A, "", B]


def test_files_with_the_same_bytes_are_one_object() -> None:
    first, second, other = (
        content.id
        for content in contents(read(file("a"), file("b", offset=200), file("c", offset=300, digest=B)))
    )

    assert first == second == Digest.parse(A).object_id
    assert other == Digest.parse(B).object_id


def test_files_of_chunks_are_named_by_them_where_nothing_names_the_file() -> None:
    def named(cut: int, second: str) -> str:
        first = file(digest="", chunkDigest=A, chunkSize=cut)
        (content,) = contents(read(first, chunk(at=cut, chunkDigest=second)))
        return content.id

    assert named(4, B) == named(4, B)
    assert len({named(4, B), named(3, B), named(4, A)}) == 3


def test_no_file_is_named_like_the_chunks_of_another() -> None:
    """Or whoever can have a file in the store could say what the chunks of another's are."""
    (content,) = contents(read(file("a", digest="", chunkDigest=A, chunkSize=4), chunk("a")))
    told = "".join(f"{piece.start}:{piece.size}:{piece.digest}\n" for piece in content.pieces)

    assert content.id != Digest.of(told.encode()).object_id


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("0001-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("2023-11-14T22:13:20Z", 1_700_000_000 * SECOND),
        ("2023-11-14T22:13:20.000000001Z", 1_700_000_000 * SECOND + 1),
        ("2023-11-14T22:13:20.5-02:30", 1_700_009_000 * SECOND + SECOND // 2),
        ("1969-12-31T23:59:58.5Z", -3 * SECOND // 2),
        ("9999-12-31T23:59:59Z", 253_402_300_799 * SECOND),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, expected: int) -> None:
    assert moment(text) == expected


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([file(".wh.gone")], id="a whiteout with content"),
        pytest.param([directory("a"), file("a/.wh..wh..opq", offset=300)], id="an opaque with content"),
        pytest.param([link(".wh.gone", "")], id="a whiteout that is a link to nothing, as of AUFS"),
        pytest.param([link("a", "b"), file("b")], id="a hard link in front of its target"),
        pytest.param([link("a", "b"), link("b", "c"), file("c")], id="a hard link to a hard link"),
        pytest.param([link("a", "/b"), file("./b")], id="a target in another spelling"),
        pytest.param([file("a/b/c")], id="directories that are implied"),
        pytest.param([file("a/b"), directory("a", offset=300)], id="a directory behind what is in it"),
        pytest.param([directory("./"), file("/a")], id="the root, and an absolute name"),
        pytest.param([file(uid=-2, gid=-2)], id="nobody, as old systems say it"),
        pytest.param([{"name": "s", "type": "symlink", "linkName": "../../etc"}], id="a symlink anywhere"),
        pytest.param([directory("d", xattrs={"system.posix_acl_default": "AAAA"})], id="a default ACL"),
        pytest.param([file("a", userName="root", numLink=3, later={"x": [1]})], id="unknown fields"),
    ],
)
def test_what_an_archive_may_hold_a_toc_may_list(entries: list[tocs.Json]) -> None:
    assert len(read(*entries).entries) == len(entries)


def test_an_empty_file_that_is_called_a_socket_is_one() -> None:
    (entry,) = read(file(size=0, digest="", mode=0o140755)).entries

    assert (entry.member.type, entry.member.mode) == (Type.SOCKET, 0o755)


def test_the_digest_of_tar_split_is_told() -> None:
    assert read(file()).split == ""
    assert read(file(), tarSplitDigest=B).split == B


_NAMES = st.sampled_from(["/b", "a", "b", "a/b", "a/c", "./a", "a/", "b/.wh.a", "b/.wh..wh..opq", "d/e/f"])
_SMALL = st.integers(-1, 12)
_OFFSETS = st.one_of(_SMALL, st.just(END - 1), st.just(END))
_DIGESTS = st.sampled_from([A, A, A, B, ""])
_ENTRIES = st.fixed_dictionaries(
    {"name": _NAMES, "type": st.sampled_from(["reg"] * 6 + ["chunk"] * 3 + ["dir", "hardlink", "symlink"])},
    optional={
        "linkName": _NAMES, "size": _SMALL, "offset": _OFFSETS, "endOffset": _OFFSETS, "innerOffset": _SMALL,
        "chunkSize": _SMALL, "chunkOffset": _SMALL, "digest": _DIGESTS, "chunkDigest": _DIGESTS,
        "chunkType": st.sampled_from(["", "", "zeros"]),
    },
)  # fmt: skip


@given(st.lists(_ENTRIES, max_size=6), st.sampled_from(TocKind))
def test_a_toc_is_refused_or_sound(entries: list[dict[str, Any]], kind: TocKind) -> None:
    try:
        toc = read_raw(tocs.raw(*entries), kind)
    except InvalidLayer:
        return
    types = {clean(entry.member.name, 256): entry.member.type for entry in toc.entries}
    assert len(types) == len(toc.entries)
    passed = 0
    for content in contents(toc):
        at = 0
        for piece in content.pieces:
            assert (piece.start, piece.size > 0) == (at, True)
            assert bool(piece.digest) or kind is CHUNKED
            assert passed <= piece.offset < piece.end <= END
            passed = piece.offset if piece.skip or kind is not CHUNKED else piece.end
            at += piece.size
        assert at == content.size
        assert content.id
    for path in types:
        assert types.get(path.rpartition(b"/")[0], Type.DIRECTORY) is Type.DIRECTORY


_NAME = st.text(string.ascii_letters + "ü .", min_size=1, max_size=8).filter(
    lambda text: text not in (".", "..")
)


@given(
    st.dictionaries(
        _NAME,
        st.lists(st.integers(1, 50), max_size=4),
        max_size=8,
    ),
    st.sampled_from(TocKind),
)
def test_what_is_written_is_read(files: dict[str, list[int]], kind: TocKind) -> None:
    """*files* are names with the sizes of their chunks."""
    entries: list[tocs.Json] = []
    expected, offset = [], 1
    for name, sizes in files.items():
        first = len(entries)
        at = 0
        for number, size in enumerate(sizes):
            base = chunk(name, at=at, offset=offset) if number else file(name, sum(sizes), offset, digest="")
            entries.append(base | {"chunkSize": size, "chunkDigest": A, "chunkOffset": at})
            expected.append((at, size))
            at, offset = at + size, offset + 10
        if sizes:
            entries[first]["endOffset"] = offset
        else:
            entries.append(file(name, 0, digest=""))

    toc = read_raw(tocs.raw(*entries), kind)

    assert [entry.member.name.decode() for entry in toc.entries] == list(files)
    assert [(piece.start, piece.size) for content in contents(toc) for piece in content.pieces] == expected
