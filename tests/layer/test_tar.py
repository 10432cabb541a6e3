"""What headers mean: formats, numbers, extended headers, sparse maps, and what is refused."""

import io
import itertools
import os
import subprocess
import tarfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import isal_zlib

from layerfs.errors import BudgetExceeded, InvalidArchive, InvalidLayer
from layerfs.layer.budgets import Budgets
from layerfs.layer.member import Member, Type
from layerfs.layer.pax import parse_records
from layerfs.layer.tar import TarReader
from tests.layer import headers
from tests.layer.headers import (
    END,
    GNU,
    USTAR,
    V7,
    base256,
    header,
    long_name,
    member,
    padded,
    pax,
    read,
    read_one,
)


@pytest.mark.parametrize("magic", [USTAR, GNU, V7], ids=["ustar", "gnu", "v7"])
def test_a_plain_header_is_read_in_each_format(magic: bytes) -> None:
    found = read_one(member(b"hi", name=b"etc/motd", mode=0o4755, uid=3, gid=4, magic=magic))

    assert (found.name, found.type, found.size) == (b"etc/motd", Type.FILE, 2)
    assert (found.mode, found.uid, found.gid) == (0o4755, 3, 4)
    assert found.mtime_ns == 1_700_000_000 * 10**9


@pytest.mark.parametrize(
    ("type", "expected"),
    [
        (b"0", Type.FILE), (b"\0", Type.FILE), (b"7", Type.FILE), (b"1", Type.HARDLINK),
        (b"2", Type.SYMLINK), (b"3", Type.CHARACTER), (b"4", Type.BLOCK), (b"5", Type.DIRECTORY),
        (b"6", Type.FIFO),
    ],
)  # fmt: skip
def test_each_type_flag_has_its_type(type: bytes, expected: Type) -> None:
    assert read_one(header(type=type, link=b"target")).type is expected


@pytest.mark.parametrize(
    ("fields", "attribute", "expected"),
    [
        pytest.param({"size": b"0000000001 "}, "size", 1, id="space ends the number"),
        pytest.param({"mode": b" 644 \0"}, "mode", 0o644, id="spaces before the number"),
        pytest.param({"mode": b""}, "mode", 0, id="empty is zero"),
        pytest.param({"uid": b"00000012"}, "uid", 0o12, id="no terminator"),
        pytest.param({"uid": base256(2**32 - 2, 8)}, "uid", 2**32 - 2, id="largest owner"),
        pytest.param({"gid": base256(70000, 8)}, "gid", 70000, id="base-256"),
        pytest.param({"mtime": -1}, "mtime_ns", -(10**9), id="negative base-256"),
        pytest.param({"uid": b"\x00001750\0"}, "uid", 0o1750, id="NUL before the number"),
        pytest.param({"mtime": b"\x001722000726"}, "mtime_ns", 0o1722000726 * 10**9, id="time after a NUL"),
        pytest.param({"size": b"\0\0 0000001"}, "size", 1, id="size after NULs and a space"),
        pytest.param({"uid": -2}, "uid", 2**32 - 2, id="the nobody of old systems"),
        pytest.param({"mode": 0o100755}, "mode", 0o755, id="file type bits in the mode"),
    ],
)
def test_numbers_are_read_as_the_field_writes_them(
    fields: dict[str, Any], attribute: str, expected: int
) -> None:
    content = bytes(512) if attribute == "size" else b""

    assert getattr(read_one(header(**fields) + content), attribute) == expected


@given(number=st.integers(-(2**87), 2**87 - 1))
def test_base_256_numbers_come_out_as_they_went_in(number: int) -> None:
    from layerfs.layer.numbers import number as parse

    assert parse(base256(number, 12), "size") == number


def test_a_large_size_needs_no_terminator() -> None:
    source = headers.BytesSource(header(size=b"777777777777") + END)

    found = TarReader(source, Budgets()).next()

    assert found is not None
    assert found.size == 8**12 - 1


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(header(name=b"name", prefix=b"some/dir", link=b""), id="ustar prefix"),
        pytest.param(long_name(b"some/dir/name") + header(magic=GNU), id="GNU long name"),
        pytest.param(pax((b"path", b"some/dir/name")) + header(), id="PAX path"),
        pytest.param(
            pax((b"path", b"other")) + long_name(b"some/dir/name") + header(), id="GNU wins over PAX"
        ),
        pytest.param(pax((b"path", b"")) + header(b"some/dir/name"), id="an empty record means none"),
        pytest.param(
            pax((b"path", b"other"), (b"path", b"some/dir/name")) + header(), id="the last record wins"
        ),
        pytest.param(pax((b"path", b"some/dir/name"), type=b"X") + header(), id="Solaris' letter for PAX"),
    ],
)
def test_long_names_come_from_where_they_may_stand(archive: bytes) -> None:
    assert read_one(archive).name == b"some/dir/name"


def test_a_path_may_have_thousands_of_bytes() -> None:
    path = b"/".join([b"d" * 200] * 30)

    assert read_one(pax((b"path", path)) + header()).name == path
    assert read_one(long_name(path) + header()).name == path
    assert read_one(long_name(path, b"K") + header(type=b"2")).link == path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1", 10**9), (b"1.5", 1_500_000_000), (b"-1.5", -1_500_000_000), (b"0.000000001", 1),
        (b"1.1234567899", 1_123_456_789), (b"-0.1", -100_000_000), (b"3.", 3 * 10**9),
    ],
)  # fmt: skip
def test_pax_times_have_nanoseconds_and_may_lie_before_1970(text: bytes, expected: int) -> None:
    assert read_one(pax((b"mtime", text)) + header()).mtime_ns == expected


def test_pax_numbers_win_over_the_header() -> None:
    archive = pax((b"size", b"3"), (b"uid", b"4000000000"), (b"gid", b"7")) + header(size=0) + padded(b"abc")

    found = read_one(archive)

    assert (found.size, found.uid, found.gid) == (3, 4000000000, 7)


def test_xattrs_come_in_two_spellings() -> None:
    archive = pax(
        (b"SCHILY.xattr.user.a", b"\x00=\n\xff"),
        (b"LIBARCHIVE.xattr.user.b%20c", b"aGk"),
        (b"LIBARCHIVE.xattr.user.a", b"b3RoZXI="),
    )

    assert read_one(archive + header()).xattrs == {b"user.a": b"\x00=\n\xff", b"user.b c": b"hi"}


def test_global_records_count_until_they_are_replaced_or_emptied() -> None:
    archive = (
        pax((b"mtime", b"5"), (b"uid", b"9"), (b"comment", b"x"), type=b"g")
        + header(b"a") + pax((b"mtime", b"6")) + header(b"b") + pax((b"uid", b"")) + header(b"c", uid=1)
        + pax((b"mtime", b""), type=b"g") + header(b"d", mtime=1)
    )  # fmt: skip

    members, warnings = read(archive + END)

    assert [(found.mtime_ns // 10**9, found.uid) for found in members] == [(5, 9), (6, 9), (5, 1), (1, 9)]
    assert warnings == []


def test_global_records_cannot_name_a_member() -> None:
    (found,), warnings = read(pax((b"path", b"evil"), (b"size", b"7"), type=b"g") + header(b"good") + END)

    assert (found.name, found.size) == (b"good", 0)
    assert len(warnings) == 2


@pytest.mark.parametrize("type", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_only_files_have_content(type: bytes) -> None:
    members, _ = read(header(b"a", type, size=99, link=b"x") + header(b"b") + END)

    assert [found.name for found in members] == [b"a", b"b"]


def test_a_name_with_a_slash_is_a_directory_in_archives_older_than_ustar() -> None:
    assert read_one(header(b"dir/", b"\0", magic=V7)).type is Type.DIRECTORY
    assert read_one(header(b"dir/", b"0")).type is Type.FILE


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(header(mode=0o140755), id="file type in the mode"),
        pytest.param(pax((b"SCHILY.filetype", b"socket")) + header(), id="star's record"),
    ],
)
def test_sockets_are_recognised(archive: bytes) -> None:
    assert read_one(archive).type is Type.SOCKET


def test_of_two_records_about_one_thing_the_later_counts() -> None:
    kind = b"SCHILY.filetype"

    assert read_one(pax((kind, b"socket"), (kind, b"regular")) + header()).type is Type.FILE
    assert read_one(pax((b"mtime", b"1"), (b"mtime", b"2.5")) + header()).mtime_ns == 2_500_000_000


@pytest.mark.parametrize("line", [b"1 ", b"1 a=", b"1 \n", b"1 a=\n", b"9 a=1\n"])
def test_reading_records_that_break_off_takes_no_longer_than_their_length(line: bytes) -> None:
    body = line * ((1 << 20) // len(line))
    with pytest.raises(InvalidArchive, match="PAX record"):
        read(member(body, type=b"x") + header() + END)


@pytest.mark.parametrize("mark", [b"", bytes(512), END, END + b"x"], ids=["none", "half", "whole", "more"])
@pytest.mark.parametrize("members", [0, 1, 2])
def test_an_archive_ends_where_its_members_end(members: int, mark: bytes) -> None:
    found, _ = read(member(b"content") * members + mark)

    assert len(found) == members


def test_a_volume_label_is_no_member() -> None:
    members, warnings = read(header(b"label", b"V", magic=GNU) + header(b"a") + END)

    assert [found.name for found in members] == [b"a"]
    assert warnings == ["volume label label ignored"]


@pytest.mark.parametrize("end", [b"", END], ids=["cut", "marked"])
@pytest.mark.parametrize("last", [pax((b"path", b"x")), long_name(b"x"), long_name(b"x", b"K")])
def test_an_extended_header_at_the_end_is_for_nobody(last: bytes, end: bytes) -> None:
    members, warnings = read(header(b"a") + last + end)

    assert [found.name for found in members] == [b"a"]
    assert len(warnings) == 1


def test_the_last_block_may_lack_its_padding() -> None:
    members, _ = read(header(b"a", size=5) + b"hello")

    assert [found.size for found in members] == [5]


@pytest.mark.parametrize(
    "long", [long_name(b"d" * 120 + b"/"), pax((b"path", b"d" * 120 + b"/"))], ids=["GNU", "PAX"]
)
def test_longname_v7_directory(long: bytes) -> None:
    assert read_one(long + header(b"d" * 100, b"\0", magic=V7)).type is Type.DIRECTORY
    short = pax((b"path", b"file"))
    assert read_one(short + header(b"d/", b"\0", magic=V7)).type is Type.FILE


@pytest.mark.parametrize("key", [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"])
@pytest.mark.parametrize("globals", [b"", pax((b"uid", b"8"), (b"gid", b"8"), (b"mtime", b"8"), type=b"g")])
def test_pax_empty_value(key: bytes, globals: bytes) -> None:
    """As in Go and bsdtar an empty value takes back a record before it, and what a global header says."""
    block = header(b"name", b"2", uid=1, gid=1, mtime=1, link=b"target")

    assert read_one(globals + pax((key, b"3"), (key, b"")) + block) == read_one(
        globals + pax((key, b"")) + block
    )
    found = read_one(pax((key, b"3"), (key, b"")) + block)
    assert (found.name, found.link, found.uid, found.gid, found.mtime_ns, found.size) == (
        b"name", b"target", 1, 1, 10**9, 0,
    )  # fmt: skip
    again = read_one(pax((key, b""), (key, b"3")) + block)
    assert again == read_one(pax((key, b"3")) + block)


def test_an_xattr_may_be_empty_and_its_last_record_counts() -> None:
    key = b"SCHILY.xattr.user.a"

    assert read_one(pax((key, b"x"), (key, b"")) + header()).xattrs == {b"user.a": b""}
    assert read_one(pax((key, b""), (key, b"x")) + header()).xattrs == {b"user.a": b"x"}


def test_an_empty_name_of_a_sparse_file_is_none() -> None:
    records = ((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,1"), (b"GNU.sparse.name", b"x"))

    found = read_one(pax(*records, (b"GNU.sparse.name", b"")) + member(b"a", name=b"name"))

    assert (found.name, found.size) == (b"name", 9)


@pytest.mark.parametrize("value", [b"0" * 100 + b"7", b"7"])
def test_pax_numbers_may_begin_with_zeros(value: bytes) -> None:
    found = read_one(pax((b"uid", value), (b"size", value), (b"mtime", value)) + header() + padded(b"x" * 7))

    assert (found.uid, found.size, found.mtime_ns) == (7, 7, 7 * 10**9)


def test_pax_owners_may_be_minus_two() -> None:
    found = read_one(pax((b"uid", b"-2"), (b"gid", b"-2")) + header())

    assert (found.uid, found.gid) == (2**32 - 2, 2**32 - 2)


def test_pax_cpu_unbounded() -> None:
    """A header of a MiB has at most so many records, whatever else it could hold."""
    with pytest.raises(BudgetExceeded, match="records"):
        read(member(b"6 a=b\n" * 170_000, type=b"x") + header() + END)
    assert read_one(pax(*[(b"a", b"b")] * 15_000) + header()).name == b"file"


_PIECES = [(512, 3), (2048, 512)]
_STORED = b"abc" + b"x" * 512


def _old_gnu(pieces: list[tuple[int, int]], size: int, *, more: bytes = b"\0") -> bytes:
    pairs = b"".join(headers.octal(at, 12) + headers.octal(length, 12) for at, length in pieces)
    return pairs.ljust(96, b"\0") + more + headers.octal(size, 12)


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(
            member(_STORED, type=b"S", magic=GNU, tail=_old_gnu(_PIECES, 4096)), id="old GNU"
        ),
        pytest.param(
            pax(
                (b"GNU.sparse.size", b"4096"), (b"GNU.sparse.numblocks", b"2"),
                (b"GNU.sparse.offset", b"512"), (b"GNU.sparse.numbytes", b"3"),
                (b"GNU.sparse.offset", b"2048"), (b"GNU.sparse.numbytes", b"512"),
            ) + member(_STORED),
            id="PAX 0.0",
        ),
        pytest.param(
            pax(
                (b"GNU.sparse.size", b"4096"), (b"GNU.sparse.numblocks", b"2"),
                (b"GNU.sparse.map", b"512,3,2048,512"), (b"GNU.sparse.name", b"file"),
            ) + member(_STORED, name=b"GNUSparseFile.0/file"),
            id="PAX 0.1",
        ),
        pytest.param(
            pax(
                (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.name", b"file"), (b"GNU.sparse.realsize", b"4096"),
            ) + member(padded(b"2\n512\n3\n2048\n512\n") + _STORED, name=b"GNUSparseFile.0/file"),
            id="PAX 1.0",
        ),
    ],
)  # fmt: skip
def test_sparse_files_are_read_in_all_four_formats(archive: bytes) -> None:
    members, _ = read(archive + header(b"next") + END)

    assert (members[0].name, members[0].size, members[0].extents) == (b"file", 4096, _PIECES)
    assert members[0].stored == len(_STORED)
    assert members[1].name == b"next"


def test_an_old_sparse_map_goes_on_in_extension_blocks() -> None:
    pieces = [(at * 1024, 1) for at in range(30)]
    pairs = b"".join(headers.octal(at, 12) + headers.octal(length, 12) for at, length in pieces[4:])
    extensions = pairs[: 21 * 24].ljust(504, b"\0") + b"\1" + bytes(7) + pairs[21 * 24 :].ljust(512, b"\0")
    head = header(size=30, type=b"S", magic=GNU, tail=_old_gnu(pieces[:4], 30000, more=b"\1"))

    assert read_one(head + extensions + padded(b"y" * 30)).extents == pieces


def test_a_large_map_1_0_spans_blocks() -> None:
    pieces = [(at * 4096, 1) for at in range(1000)]
    text = b"1000\n" + b"".join(b"%d\n%d\n" % piece for piece in pieces)
    records = pax(
        (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"4096000")
    )

    assert read_one(records + member(padded(text) + b"z" * 1000)).extents == pieces


def _sparse(*records: tuple[bytes, bytes], content: bytes = b"") -> bytes:
    return pax((b"GNU.sparse.size", b"100"), *records) + member(content)


REFUSED = [
    pytest.param(header() + bytes(512) + header(), "zeros inside", id="a block of zeros inside"),
    pytest.param(header()[:300], "truncated", id="half a header"),
    pytest.param(member(b"x" * 600)[:-512] , "truncated", id="content cut off"),
    pytest.param(header(checksum=b"000000\0 "), "checksum", id="wrong checksum"),
    pytest.param(header(checksum=b"zzzzzz\0 "), "checksum", id="checksum that is no number"),
    pytest.param(header(type=b"Z"), "unknown type", id="unknown type"),
    pytest.param(header(type=b"M"), "unknown type", id="continued from another volume"),
    pytest.param(header(size=b"12345678901x"), "size", id="size with a letter"),
    pytest.param(header(size=b"+0000000001"), "size", id="size with a sign"),
    pytest.param(header(size=b"0_00000001"), "size", id="size with an underscore"),
    pytest.param(header(size=b"00000000009"), "size", id="size with a digit 9"),
    pytest.param(header(size=base256(-5, 12)), "negative", id="negative size"),
    pytest.param(header(uid=base256(-1, 8)), "owner", id="negative owner"),
    pytest.param(header(gid=base256(2**32 - 1, 8)), "owner", id="owner that chown takes for none"),
    pytest.param(header(mtime=base256(2**80, 12)), "out of range", id="time after the end of time"),
    pytest.param(header(type=b"3", major=4096), "device", id="major number out of range"),
    pytest.param(header(type=b"4", minor=1 << 20), "device", id="minor number out of range"),
    pytest.param(header(type=b"3", major=base256(-1, 8)), "device", id="negative major number"),
    pytest.param(pax((b"path", b"a\0b")) + header(), "NUL", id="NUL in a path"),
    pytest.param(pax((b"linkpath", b"a\0b")) + header(type=b"2"), "NUL", id="NUL in a link"),
    pytest.param(pax((b"", b"x")) + header(), "malformed", id="record without a key"),
    pytest.param(pax((b"size", b"-1")) + header(), "PAX size", id="negative PAX size"),
    pytest.param(pax((b"size", b"1e3")) + header(), "PAX size", id="PAX size that is no number"),
    pytest.param(pax((b"size", b"9" * 20)) + header(), "PAX size", id="PAX size beyond 2^63"),
    pytest.param(pax((b"uid", b"4294967295")) + header(), "owner", id="PAX owner out of range"),
    pytest.param(pax((b"mtime", b"tomorrow")) + header(), "mtime", id="PAX time that is no number"),
    pytest.param(pax((b"mtime", b"1.2.3")) + header(), "mtime", id="PAX time with two points"),
    pytest.param(pax((b"LIBARCHIVE.xattr.user.a", b"a")) + header(), "base64", id="xattr that is no base64"),
    pytest.param(member(b"5 a=b\n", type=b"x") + header(), "malformed", id="record length too short"),
    pytest.param(member(b"60 a=b\n", type=b"x") + header(), "malformed", id="record length too long"),
    pytest.param(member(b"x a=b\n", type=b"x") + header(), "no length", id="record length no number"),
    pytest.param(member(b"6 abc\n", type=b"x") + header(), "malformed", id="record without equals"),
    pytest.param(member(b"0 a=b\n", type=b"x") + header(), "malformed", id="record of no length"),
    pytest.param(_sparse((b"GNU.sparse.map", b"1")), "offset without", id="sparse map of odd length"),
    pytest.param(_sparse((b"GNU.sparse.map", b"0,1,0,1"), content=b"ab"), "overlap", id="pieces overlap"),
    pytest.param(_sparse((b"GNU.sparse.map", b"50,1,0,1"), content=b"ab"), "overlap", id="pieces go back"),
    pytest.param(_sparse((b"GNU.sparse.map", b"100,1"), content=b"a"), "beyond", id="piece beyond the end"),
    pytest.param(_sparse((b"GNU.sparse.map", b"0,1"), content=b"ab"), "stored", id="too much content"),
    pytest.param(_sparse((b"GNU.sparse.map", b"0,2"), content=b"a"), "stored", id="too little content"),
    pytest.param(_sparse((b"GNU.sparse.map", b"0,x"), content=b"a"), "number", id="piece that is no number"),
    pytest.param(
        _sparse((b"GNU.sparse.numbytes", b"1"), (b"GNU.sparse.offset", b"1")), "alternate",
        id="map 0.0 mixed up",
    ),
    pytest.param(
        pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"))
        + member(b"9\n"), "does not end", id="map 1.0 cut off",
    ),
    pytest.param(
        pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"))
        + member(b"x" * 4096), "malformed", id="map 1.0 without a newline",
    ),
    pytest.param(
        pax((b"GNU.sparse.major", b"2"), (b"GNU.sparse.minor", b"0")) + header(), "format", id="format 2.0"
    ),
    pytest.param(
        pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")) + member(padded(b"0\n")),
        "without a size", id="sparse without a size",
    ),
    pytest.param(
        header(size=0, type=b"S", magic=GNU, tail=_old_gnu([(0, 0)], 5, more=b"\1")), "in a sparse map",
        id="extension block missing",
    ),
]  # fmt: skip


_NO_END = ("zeros inside", "truncated", "in a sparse map")


@pytest.mark.parametrize(("archive", "reason"), REFUSED)
def test_what_breaks_the_format_is_refused_with_the_reason(archive: bytes, reason: str) -> None:
    with pytest.raises(InvalidArchive, match=reason):
        read(archive if reason in _NO_END else archive + END)


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(member(b"x" * 5000, type=b"x"), id="extended header"),
        pytest.param(member(b"x" * 5000, type=b"L"), id="long name"),
        pytest.param(header(type=b"x", size=base256(-512, 12)), id="of negative size"),
        pytest.param(header(type=b"x", size=8**11 - 1), id="beyond the end"),
        pytest.param(
            pax((b"SCHILY.xattr.user.a", b"x" * 900)) * 2
            + pax(*((b"SCHILY.xattr.user.%d" % n, b"") for n in range(90))),
            id="extended header of many records",
        ),
        pytest.param(
            b"".join(pax((b"k%d" % n, b"x" * 900), type=b"g") for n in range(5)) , id="global headers"
        ),
        pytest.param(
            pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"))
            + member(padded(b"99999999\n")), id="map 1.0 of a hundred million pieces",
        ),
        pytest.param(
            header(type=b"S", magic=GNU, tail=_old_gnu([(0, 0)], 5, more=b"\1"))
            + (bytes(504) + b"\1" + bytes(7)) * 9, id="extension blocks",
        ),
    ],
)  # fmt: skip
def test_extended_headers_have_a_budget_that_the_error_names(archive: bytes) -> None:
    with pytest.raises(BudgetExceeded, match="max_pax_bytes"):
        read(archive + header() + END, Budgets(max_pax_bytes=2000))


@pytest.mark.parametrize("end", [bytes(512), bytes(1024), bytes(10240), END + b"garbage", END + header(b"x")])
def test_an_archive_ends_at_its_end_mark(end: bytes) -> None:
    members, _ = read(header(b"a") + end)

    assert [found.name for found in members] == [b"a"]


def _sample_members() -> list[bytes]:
    return [
        pax((b"mtime", b"5.5"), (b"SCHILY.xattr.user.a", b"b"), (b"path", b"p" * 150)) + member(b"hi", uid=7),
        long_name(b"l" * 200) + header(type=b"5", magic=GNU),
        pax((b"GNU.sparse.size", b"4096"), (b"GNU.sparse.map", b"512,3,2048,512")) + member(_STORED),
        member(_STORED, type=b"S", magic=GNU, tail=_old_gnu(_PIECES, 4096)),
        header(b"link", b"1", link=b"file"), header(b"null", b"3", major=1, minor=3),
    ]  # fmt: skip


def _sample() -> bytes:
    return b"".join(_sample_members()) + END


@pytest.mark.parametrize("blocks", range(len(_sample()) // 512 - 1))
def test_an_archive_cut_off_inside_a_member_is_refused(blocks: int) -> None:
    ends = [0, *itertools.accumulate(map(len, _sample_members()))]
    if blocks * 512 in ends:
        members, _ = read(_sample()[: blocks * 512])
        assert len(members) == ends.index(blocks * 512)
    elif blocks * 512 < ends[-1]:
        try:
            _, warnings = read(_sample()[: blocks * 512])
        except InvalidArchive:
            pass
        else:
            assert "extended header at the end" in warnings[-1]  # as Go and GNU tar see it


@given(changes=st.lists(st.tuples(st.integers(0, len(_sample()) - 1), st.integers(0, 255)), max_size=8))
@settings(max_examples=300, deadline=None)
def test_no_changed_byte_makes_the_reader_fail_in_an_unknown_way(changes: list[tuple[int, int]]) -> None:
    archive = bytearray(_sample())
    for at, value in changes:
        archive[at] = value

    with suppress(InvalidLayer):
        read(bytes(archive))


@given(
    block=st.integers(0, len(_sample()) // 512 - 1),
    changes=st.lists(st.tuples(st.integers(0, 511), st.binary(min_size=1, max_size=12)), max_size=4),
)
@settings(max_examples=300, deadline=None)
def test_nor_does_a_changed_header_whose_checksum_is_right(
    block: int, changes: list[tuple[int, bytes]]
) -> None:
    archive = bytearray(_sample())
    start = block * 512
    for at, text in changes:
        text = text[: 512 - at]
        archive[start + at : start + at + len(text)] = text
    archive[start + 148 : start + 156] = b" " * 8
    archive[start + 148 : start + 156] = b"%06o\0 " % sum(archive[start : start + 512])

    with suppress(InvalidLayer):
        read(bytes(archive))


@pytest.mark.parametrize("form", ["v7", "ustar", "oldgnu", "gnu", "posix"])
def test_what_gnu_tar_writes_is_what_it_reads(tmp_path: Path, form: str) -> None:
    (tmp_path / "tree" / "d").mkdir(parents=True)
    (tmp_path / "tree" / "d" / "file").write_bytes(b"x" * 1000)
    (tmp_path / "tree" / "link").symlink_to("d/file")
    (tmp_path / "tree" / "hard").hardlink_to(tmp_path / "tree" / "d" / "file")
    data = subprocess.run(
        ["tar", "-C", tmp_path / "tree", f"--format={form}", "-cf", "-", "."], check=True, capture_output=True
    ).stdout

    members, warnings = read(data)

    assert warnings == []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [
            (info.name, info.size, info.mode, info.uid, info.linkname, round(info.mtime, 3))
            for info in archive.getmembers()
        ]
    assert [
        (
            os.fsdecode(found.name).rstrip("/"),
            found.size,
            found.mode,
            found.uid,
            os.fsdecode(found.link),
            round(found.mtime_ns / 10**9, 3),
        )
        for found in members
    ] == expected


_records = st.lists(
    st.tuples(
        st.sampled_from([b"mtime", b"mtime", b"atime", b"uid", b"path", b"comment", b"SCHILY.xattr.user.a"]),
        st.sampled_from([b"", b"1", b"17.5", b"-3.000000001", b"1e9", b"name", b"9" * 30]),
    ),
    max_size=2,
)
_bodies = st.one_of(
    _records.map(lambda records: b"".join(headers.record(*pair) for pair in records)),
    st.binary(max_size=70),
    st.sampled_from([b"12 mtime=17\n", b"11 mtime=1\n0", b"11 mtime=1\n11 mtime=2\n", b"011 mtime=1\n"]),
)


def _said(*archive: bytes) -> tuple[list[Member], str]:
    """Return the members of an archive, and why it was refused."""
    source = headers.BytesSource(b"".join(archive) + END)
    reader = TarReader(source, Budgets())
    members: list[Member] = []
    try:
        while (found := reader.next()) is not None:
            members.append(found)
    except InvalidLayer as exc:
        return members, f"{type(exc).__name__}: {exc}"
    return members, ""


@given(bodies=st.lists(_bodies, min_size=1, max_size=6))
def test_a_pax_header_that_was_seen_before_means_what_it_means_the_first_time(bodies: list[bytes]) -> None:
    entries = [member(body, name=b"PaxHeaders/file", type=b"x") + header() for body in bodies]
    expected: list[Member] = []
    refusal = ""
    for entry in entries * 2:
        found, refusal = _said(entry)
        expected += found
        if refusal:
            break

    assert _said(*entries, *entries) == (expected, refusal)


@given(body=_bodies)
def test_a_short_pax_header_means_what_a_long_one_means_that_says_the_same(body: bytes) -> None:
    with suppress(InvalidLayer):
        parse_records(body)
        long = headers.record(b"comment", b"-" * 100) + body

        assert _said(member(body, type=b"x"), header()) == _said(member(long, type=b"x"), header())


@given(
    form=st.sampled_from([b"%06o\0 ", b"%06o \0", b"%07o\0", b"%07o ", b"%08o", b" %o\0", b"  %o "]),
    name=st.binary(min_size=1, max_size=90).filter(lambda name: not name.startswith(b"\0")),
    error=st.integers(-3, 3),
)
def test_a_checksum_counts_in_each_spelling_and_only_if_it_is_right(
    form: bytes, name: bytes, error: int
) -> None:
    block = header(name, checksum=b" " * 8)
    right = header(name, checksum=form % sum(block))
    wrong = header(name, checksum=form % (sum(block) + error))
    after = bytearray(right)
    after[0] ^= 1

    assert len(_said(right, right)[0]) == 2
    assert len(_said(right, wrong)[0]) == (1 if error else 2)
    assert len(_said(right, bytes(after))[0]) == 1


@given(content=st.binary(max_size=512))
def test_adler_32_is_the_same_from_both_libraries(content: bytes) -> None:
    assert isal_zlib.adler32(content) == zlib.adler32(content)


def test_xattrs_of_a_global_and_an_own_header_share_one_limit() -> None:
    def archive(size: int) -> bytes:
        everywhere = pax((b"SCHILY.xattr.user.a", b"x" * size), type=b"g")
        return everywhere + pax((b"SCHILY.xattr.user.b", b"x" * size)) + member(name=b"a") + END

    few = Budgets(max_pax_bytes=1000)
    [found], _ = read(archive(400), few)
    assert found.xattrs == {b"user.a": b"x" * 400, b"user.b": b"x" * 400}
    with pytest.raises(BudgetExceeded, match=r"^a: more than 1000 bytes of xattrs \(max_pax_bytes\)$"):
        read(archive(600), few)


def test_an_archive_is_warned_of_a_hundred_times_at_most() -> None:
    _, warnings = read(pax((b"path", b"x"), type=b"g") * 101 + member(name=b"a") + END)
    assert warnings == ["global PAX header: path ignored"] * 100


def test_more_owners_and_times_than_are_kept_are_read_alike() -> None:
    count = 8193  # more than any cache of fields keeps
    members, _ = read(
        b"".join(member(name=b"a", uid=number, mtime=number) for number in range(count))
        + member(name=b"a", uid=0, mtime=0)
        + END
    )
    assert [(found.uid, found.mtime_ns) for found in members] == [
        (number, number * 10**9) for number in [*range(count), 0]
    ]
