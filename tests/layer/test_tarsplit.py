"""tar-split says what the archive says, or is found out; a TOC that says something else does not pass."""

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import BudgetExceeded, InvalidToc
from layerfs.extract.tocs import unpack
from layerfs.layer.budgets import Budgets
from layerfs.layer.member import Member, Type
from layerfs.layer.tarsplit import headers, require_same
from layerfs.layer.toc import Entry
from tests.layer.headers import END, header, pax, read
from tests.support import lazy_images
from tests.support.lazy_layers import place_of, toc_of

KIND = "debian13-skopeo"


def split_of(*parts: bytes | int) -> bytes:
    """Return a tar-split of bytes of the archive, and of sizes of contents."""
    lines = []
    for part in parts:
        if isinstance(part, int):
            lines.append({"type": 1, "size": part, "payload": "AAAAAAAAAAA="})
        else:
            lines.append({"type": 2, "payload": base64.b64encode(part).decode()})
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def listed(*parts: bytes | int) -> list[Member]:
    """Return the members that a tar-split lists."""
    return [*headers(split_of(*parts), Budgets())]


def real() -> tuple[list[Entry], bytes]:
    """Return the TOC and the tar-split of a layer that skopeo wrote."""
    built = lazy_images.load(KIND)
    split = place_of(built, 0).split
    assert split is not None
    return toc_of(built, 0), unpack(built.layers[0].blob[split.start : split.end], "zstd", split)


def test_padding_and_long_headers_are_passed_over() -> None:
    extended = pax((b"path", b"a/" * 100 + b"long"), (b"SCHILY.xattr.user.a", b"\0\xff"))
    parts = (header(b"a", size=700), 700, bytes(1024 - 700) + extended + header(size=3), 3, bytes(509) + END)

    first, second = listed(*parts)

    assert (first.name, first.size) == (b"a", 700)
    assert (second.name, second.xattrs) == (b"a/" * 100 + b"long", {b"user.a": b"\0\xff"})


def test_bytes_may_be_cut_anywhere() -> None:
    whole = header(b"d", b"5") + END

    assert listed(header(b"d", b"5"), 0, END) == listed(whole[:100], whole[100:512], 0, END[:5], END[5:])


def test_an_archive_may_end_without_its_mark_or_long_behind_it() -> None:
    marked = listed(header(b"d", b"5"), 0, END)

    assert listed(header(b"d", b"5"), 0) == marked
    assert listed(header(b"d", b"5"), 0, END, bytes(5000), b"whatever") == marked


def test_a_long_header_may_come_byte_by_byte() -> None:
    """In time that grows with its length, not with its square."""
    whole = pax((b"comment", b"x" * 100_000)) + header(b"d", b"5")

    assert listed(*(whole[at : at + 1] for at in range(len(whole))), 0, END) == listed(
        header(b"d", b"5"), 0, END
    )


def test_what_is_listed_is_what_the_archive_says() -> None:
    archive = header(b"a", b"5", mode=0o755) + header(b"a/b", size=5, uid=3) + b"12345" + bytes(507) + END
    parts = (archive[:512], 0, archive[512:1024], 5, archive[1029:])

    expected, _ = read(archive)
    assert [(member.name, member.size) for member in listed(*parts)] == [
        (member.name, member.size) for member in expected
    ]


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        pytest.param(b"{", "tar-split: ", id="no JSON"),
        pytest.param(b"[" * 100_000, "tar-split: ", id="arrays in arrays"),
        pytest.param(b'{"type":2,"payload":"!"}', "tar-split: ", id="no base64"),
        pytest.param(b'{"payload":""}', "tar-split: ", id="no type"),
        pytest.param(b"\xff", "tar-split: ", id="no UTF-8"),
        pytest.param(split_of(b"x" * 512), "no tar archive", id="no header"),
        pytest.param(split_of(header()[:300]), "inside of a header", id="half a header"),
        pytest.param(split_of(header(size=5)), "no content", id="a header without its content"),
        pytest.param(split_of(header(size=5), 4), "4 bytes of content", id="less content"),
        pytest.param(split_of(header(size=5), 6), "6 bytes of content", id="more content"),
        pytest.param(split_of(header(size=0), 5), "5 bytes of content", id="content of an empty file"),
        pytest.param(split_of(header(b"d", b"5"), END), "no content", id="no line of a member"),
        pytest.param(split_of(header(size=5) + b"12345", 5), "no content", id="content in bytes"),
        pytest.param(split_of(5, header()), "where a header should be", id="content of nothing"),
        pytest.param(split_of(header()[:300], 5), "where a header should be", id="content in a header"),
        pytest.param(split_of(header(), 0, END, 700), "behind the end", id="content behind the end"),
        pytest.param(split_of(header(size=5), 5, b"x" * 507 + header()[:5]), "inside of", id="cut later"),
        pytest.param(split_of(header(size=1 << 30, type=b"x"), 5), "header of", id="an endless header"),
        pytest.param(split_of(header(type=b"Z"), 0), "unknown type", id="an unknown type"),
        pytest.param(split_of(header(checksum=b"0000000\0"), 0), "checksum", id="a wrong checksum"),
    ],
)
def test_a_tar_split_that_is_none_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises((InvalidToc, BudgetExceeded), match=why):
        list(headers(raw, Budgets()))


def test_a_real_toc_and_its_tar_split_say_the_same_in_any_order() -> None:
    entries, split = real()

    require_same(entries, headers(split, Budgets()))
    require_same(entries[::-1], headers(split, Budgets()))


@given(at=st.integers(0, 1 << 20), bits=st.integers(1, 255))
def test_a_damaged_tar_split_is_refused_or_says_the_same(at: int, bits: int) -> None:
    """What differs in it and is not noticed is nothing that layerfs keeps of a member."""
    entries, split = real()
    damaged = bytearray(split)
    damaged[at % len(split)] ^= bits
    with suppress(InvalidToc, BudgetExceeded):
        require_same(entries, headers(bytes(damaged), Budgets()))


def changed(entry: bytes, /, **values: Any) -> Any:
    """Return a change of one entry."""

    def change(entries: list[Entry]) -> list[Entry]:
        (found,) = (each for each in entries if each.member.name == entry)
        for field, value in values.items():
            assert getattr(found.member, field) != value
            setattr(found.member, field, value)
        return entries

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(changed(b"etc/hostname", name=b"etc/hostnome"), "not in the TOC", id="a name"),
        pytest.param(changed(b"etc/hostname", name=b"./etc/hostname"), "not in the TOC", id="its spelling"),
        pytest.param(changed(b"etc/empty", type=Type.FIFO), "etc/empty: type", id="a type"),
        pytest.param(changed(b"etc/secret", mode=0o644), "etc/secret: mode", id="a mode"),
        pytest.param(changed(b"bin/su", mode=0o755), "bin/su: mode", id="setuid"),
        pytest.param(changed(b"etc/secret", uid=0), "etc/secret: uid", id="an owner"),
        pytest.param(changed(b"etc/secret", gid=0), "etc/secret: gid", id="a group"),
        pytest.param(changed(b"etc/hostname", mtime_ns=17 * 10**17), "mtime_ns", id="a fraction of a second"),
        pytest.param(changed(b"etc/hostname", size=6), "etc/hostname: size", id="a size"),
        pytest.param(changed(b"bin/sh", link=b"sudo"), "bin/sh: link", id="the target of a symlink"),
        pytest.param(changed(b"bin/sudo", link=b"bin/sh"), "bin/sudo: link", id="the target of a hard link"),
        pytest.param(changed(b"dev/null", minor=4), "dev/null: minor", id="a minor device number"),
        pytest.param(changed(b"dev/disk", major=9), "dev/disk: major", id="a major device number"),
        pytest.param(changed(b"usr/ping", xattrs=None), "usr/ping: xattrs", id="no attributes"),
        pytest.param(changed(b"etc/empty", xattrs={b"user.a": b""}), "etc/empty: xattrs", id="one more"),
        pytest.param(
            changed(b"usr/implied/parents", xattrs={b"user.comment": b"a valuE"}), "xattrs", id="its value"
        ),
        pytest.param(lambda entries: entries[:-1], "in tar-split, not in the TOC", id="an entry less"),
        pytest.param(
            lambda entries: [
                *entries,
                Entry(Member(b"x", Type.FIFO, 0, 0, 0, 0, 0, 0), None),
            ],
            r"x: in the TOC, not in tar-split \(1 such",
            id="an entry more",
        ),
    ],
)
def test_a_toc_that_says_something_else_is_refused(change: Any, why: str) -> None:
    entries, split = real()

    with pytest.raises(InvalidToc, match=why):
        require_same(change(entries), headers(split, Budgets()))


def test_a_second_member_of_a_name_is_refused() -> None:
    twice = [member for part in (1, 2) for member in listed(header(b"d", b"5"), 0, END)]
    entries = [Entry(listed(header(b"d", b"5"), 0, END)[0], None)]

    with pytest.raises(InvalidToc, match="d: in tar-split, not in the TOC"):
        require_same(entries, twice)
