"""TOCs that mean harm, or that two programs could read in two ways: each is refused, and says why."""

from typing import Any

import pytest

from layerfs.errors import BudgetExceeded, InvalidLayer, InvalidToc
from layerfs.layer.budgets import Budgets
from layerfs.layer.metadata import kept_xattrs
from layerfs.layer.tocpieces import SKIP_MAX
from tests.layer import tocs
from tests.layer.tocs import (
    CHUNKED,
    END,
    A,
    B,
    chunk,
    chunked,
    directory,
    file,
    link,
    read,
    read_raw,
)

FIRST: tocs.Json = {"chunkSize": 4, "chunkDigest": A}
"""What makes `file` the first chunk of several."""


def refused(*entries: tocs.Json, why: str, id: str, **more: Any) -> Any:
    return pytest.param(entries, why, more, id=id)


OF_BYTE = "sha256:" + "1" * 64

NAMES = [
    refused(directory("a"), directory("a"), why="a: listed twice", id="one name twice"),
    refused(file("a"), directory("a/", offset=300), why="a: listed twice", id="one name, two types"),
    refused(file("a"), file("./a", offset=300), why="a: listed twice", id="one name in two spellings"),
    refused(file("a"), file("/a", offset=300), why="a: listed twice", id="one name, once absolute"),
    refused(file("b//a"), file("b/./a", offset=300), why="b/a: listed twice", id="slashes and dots"),
    refused(directory("../a"), why="holds '..'", id="a name that leads out"),
    refused(file("a/../../b"), why="holds '..'", id="a name that leads out further down"),
    refused(file("a/.."), why="holds '..'", id="a name that is its parent"),
    refused(file(""), why="empty name", id="no name"),
    refused(file("a\0b"), why="holds a NUL", id="a NUL in a name"),
    refused(file("a" * 256), why="longer than 255", id="a name that no disk holds"),
    refused(file("x/" * 300 + "a"), why="max_depth", id="a deep name"),
    refused(file("caf\ufffd"), why="no UTF-8", id="a name that the TOC has lost"),
    refused(file("./"), why="root is no directory", id="a file in the place of the root"),
    refused(file("a"), file("a/b", offset=300), why="in a, which is no directory", id="an entry in a file"),
    refused(
        {"name": "a", "type": "symlink", "linkName": "/etc"}, file("a/b/c"),
        why="in a, which is no directory", id="an entry behind a symlink",
    ),
    refused(file("stargz.index.json"), why="listed twice", id="the TOC itself"),
    refused(file("stargz.index.json/a"), why="no directory", id="an entry in the TOC"),
    refused(directory(".wh..wh..opq"), file(".wh..wh..opq/a"), why="below a marker", id="opaque content"),
    refused(file("a/.wh.b/c"), why="below a marker", id="content of a whiteout"),
    refused(file(".wh."), why="hides nothing", id="a whiteout of nothing in the root"),
    refused(file("a/.wh."), why="hides nothing", id="a whiteout of nothing"),
    refused(file("a/.wh..."), why="hides nothing", id="a whiteout of the parent"),
]  # fmt: skip

LINKS = [
    refused(link("a", "b"), why="b, which is no entry", id="a hard link to nothing"),
    refused(link("a", ""), why="empty name", id="a hard link without a target"),
    refused(link("a", "a"), why="a circle", id="a hard link to itself"),
    refused(link("a", "b"), link("b", "a"), why="a circle", id="two hard links to each other"),
    refused(
        link("x", "a"),
        link("a", "b"),
        link("b", "c"),
        link("c", "b"),
        why="a circle",
        id="a circle further on",
    ),
    refused(directory("d"), link("a", "d"), why="or a directory", id="a hard link to a directory"),
    refused(
        directory("d"), link("b", "d"), link("a", "b"), why="or a directory", id="the same by a way round"
    ),
    refused(file("d/f"), link("a", "d"), why="or a directory", id="a hard link to an implied directory"),
    refused(link("a", "../etc/passwd"), why="holds '..'", id="a hard link that leads out"),
    refused(link("a", "caf\ufffd"), why="no UTF-8", id="a target that the TOC has lost"),
]

PLACES = [
    refused(file("a", offset=300), file("b"), why="offset 100", id="offsets that run backwards"),
    refused(file("a"), file("b"), why="inner offset 0", id="two files at one offset"),
    refused(
        file("a", innerOffset=10), file("b", innerOffset=16),
        why="inner offset 16", id="packed files that overlap",
    ),
    refused(file("a", offset=300), file("b", innerOffset=900), why="offset 100", id="packed backwards"),
    refused(file(offset=-1), why="offset -1", id="a negative offset"),
    refused(file(offset=END), why=f"offset {END}", id="an offset in the TOC"),
    refused(file(offset=1 << 62), why="in front of the TOC", id="an offset outside of the blob"),
    refused(file(innerOffset=-1), why="inner offset -1", id="a negative inner offset"),
    refused(file(innerOffset=SKIP_MAX + 1), why="inner offset", id="a file behind a bomb"),
    refused(
        file("a", size=2, chunkSize=1, chunkDigest=OF_BYTE, innerOffset=SKIP_MAX - 9),
        {"name": "a", "type": "chunk", "offset": 100, "chunkOffset": 1, "chunkSize": 1,
         "chunkDigest": OF_BYTE, "innerOffset": SKIP_MAX},
        why="in front of its chunks", id="a file whose chunks all lie behind a bomb",
    ),
    refused(
        chunked("a"), chunked("b", offset=199, end=300),
        kind=CHUNKED, why="offset 199", id="data that overlaps",
    ),
    refused(chunked(offset=0), kind=CHUNKED, why="offset 0", id="data where a header must be"),
    refused(chunked(end=0), kind=CHUNKED, why="end 0", id="data without an end"),
    refused(chunked(end=100), kind=CHUNKED, why="end 100", id="data of no bytes"),
    refused(chunked(end=50), kind=CHUNKED, why="end 50", id="data that ends before it begins"),
    refused(chunked(end=END + 1), kind=CHUNKED, why=f"end {END + 1}", id="data that goes on in the TOC"),
    refused(chunked(innerOffset=1), kind=CHUNKED, why="inner offset", id="packed zstd:chunked"),
    refused(
        chunked(end=250, **FIRST), chunk(offset=250),
        kind=CHUNKED, why="end 250", id="a chunk that begins at the end",
    ),
    refused(
        chunked(end=300, **FIRST), chunk(offset=100),
        kind=CHUNKED, why="offset 100", id="two chunks in one place",
    ),
]  # fmt: skip

CHUNKS = [
    refused(chunk(), why="type 'chunk'", id="a chunk of nothing"),
    refused(directory("d"), chunk("d"), why="no content", id="a chunk of a directory"),
    refused(file("a", size=0, digest=""), chunk("a"), why="no content", id="a chunk of an empty file"),
    refused(file(**FIRST), chunk("other"), why="'other' follows", id="a chunk of another file"),
    refused(file(**FIRST), chunk(at=5), why="a chunk at 5", id="a gap between chunks"),
    refused(file(**FIRST), chunk(at=3), why="a chunk at 3", id="chunks that overlap"),
    refused(file(**FIRST), chunk(at=-4), why="a chunk at -4", id="a chunk in front of the file"),
    refused(file(**FIRST), why="chunks of 4 bytes together", id="too few chunks"),
    refused(file(**FIRST), chunk(chunkSize=2), why="chunks of 6 bytes together", id="a short last chunk"),
    refused(file(**FIRST), chunk(chunkSize=4), why="a chunk of 4 bytes at 4 of 7", id="a long last chunk"),
    refused(file(chunkSize=8), why="a chunk of 8 bytes", id="a chunk longer than its file"),
    refused(file(chunkSize=-1), why="a chunk of -1 bytes", id="a negative chunk"),
    refused(file(chunkSize=1 << 63), why="a chunk of", id="a chunk of 2^63 bytes"),
    refused(file(chunkDigest=A), chunk(at=7), why="a chunk of 0 bytes", id="a chunk behind the end"),
    refused(file(chunkOffset=1), why="a chunk at 1", id="a file that begins in its middle"),
    refused(file(size=-1), why="size -1", id="a negative size"),
    refused(file(size=1 << 63), why="size 9223372036854775808", id="a size of 2^63"),
    refused(file(chunkType="holes"), why="type 'holes'", id="an unknown type of chunk"),
    refused(file(chunkType="zeros"), why="type 'zeros'", id="a hole where the format has none"),
    refused(
        chunked(end=300, chunkType="zeros", chunkSize=8), chunk(at=8),
        kind=CHUNKED, why="a chunk of 8 bytes", id="a hole longer than its file",
    ),
]  # fmt: skip

DIGESTS = [
    refused(file(digest=""), why="no digest", id="data without a digest"),
    refused(file(chunkSize=4), chunk(), why="no digest for the bytes at 0", id="a first chunk without one"),
    refused(
        file(**FIRST), chunk(chunkDigest=""), why="no digest for the bytes at 4", id="a last one without"
    ),
    refused(file(digest="sha256:abc"), why="64 lowercase", id="a short digest"),
    refused(file(digest=A.upper()), why="64 lowercase", id="a digest in capitals"),
    refused(file(digest="md5:" + "0" * 32), why="64 lowercase", id="a weak digest"),
    refused(file(digest=A + "\n"), why="64 lowercase", id="a digest with a line's end"),
    refused(file(digest="sha512:" + "0" * 128), why="64 lowercase", id="a digest of the wrong kind"),
    refused(file("a"), file("b", size=8, offset=200), why="b: 8 bytes with the digest of 7", id="two sizes"),
    refused(file(chunkDigest=B), why="its only chunk's is", id="two digests for the same bytes"),
    refused(file(size=0, digest=A), why="an empty file with the digest", id="an empty file with bytes"),
    refused(
        file(),
        why="tarSplitDigest: .*64 lowercase",
        id="a digest of tar-split that is none",
        tarSplitDigest="sha256:0",
    ),
]

VALUES = [
    refused(file(type="socket"), why="type 'socket'", id="an unknown type"),
    refused(file(type=""), why="type ''", id="no type"),
    refused(file(uid=1 << 32), why="owner", id="an owner beyond 32 bits"),
    refused(file(gid=(1 << 32) - 1), why="owner", id="the group that changes nothing"),
    refused(file(uid=-(1 << 40)), why="owner", id="a negative owner"),
    refused(file(modtime="1152921504606846976-01-01T00:00:00Z"), why="modtime", id="the year 2^60"),
    refused(file(modtime="2023-02-30T00:00:00Z"), why="modtime", id="a day that never was"),
    refused(file(modtime="yesterday"), why="modtime", id="a time in words"),
    refused(file(modtime="2023-11-14T22:13:20"), why="modtime", id="a time of no zone"),
    refused(file(modtime="2023-11-14T22:13:20.1234567890Z"), why="modtime", id="a time too fine"),
    refused(file(modtime="0000-01-01T00:00:00Z"), why="modtime", id="the year 0"),
    refused(
        {"name": "d", "type": "char", "devMajor": 1 << 12}, why="device", id="a device beyond the kernel's"
    ),
    refused({"name": "d", "type": "block", "devMinor": -1}, why="device", id="a negative device"),
    refused(file(xattrs={"user.a": "no base64!"}), why="TOC: ", id="an attribute that is no base64"),
    refused(file(xattrs={"user.\ufffd": ""}), why="no UTF-8", id="an attribute whose name is lost"),
    refused(
        file(xattrs={"system.posix_acl_default": "AAAA"}), why="default ACL", id="a default ACL on a file"
    ),
    refused(file(size="7"), why="TOC: ", id="a size in words"),
    refused(file(size=None), why="TOC: ", id="a size that is null"),
    refused(file(mode=0.5), why="TOC: ", id="a mode with a fraction"),
    refused(version=2, why="version 2", id="another version"),
    refused({"name": "a"}, why="TOC: ", id="an entry without a type"),
]

TABLE = [*NAMES, *LINKS, *PLACES, *CHUNKS, *DIGESTS, *VALUES]


@pytest.mark.parametrize(("entries", "why", "more"), TABLE)
def test_a_toc_that_breaks_a_rule_is_refused(
    entries: tuple[tocs.Json, ...], why: str, more: dict[str, Any]
) -> None:
    with pytest.raises(InvalidLayer, match=why) as caught:
        read(*entries, **more)

    assert isinstance(caught.value, BudgetExceeded if why == "max_depth" else InvalidToc)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0" * 1000, id="zeros"),
        pytest.param(b"[" * 100_000, id="arrays in arrays"),
        pytest.param(b'{"version":1,"entries":' + b"[" * 100_000, id="arrays in its entries"),
        pytest.param(b'{"version":1,"x":' + b'{"a":' * 100_000, id="objects in what is not read"),
        pytest.param(b'{"version":1,"entries":null}', id="no entries"),
        pytest.param(b'{"version":1}', id="entries left out"),
        pytest.param(b'{"version":1,"entries":[]} {}', id="two documents"),
        pytest.param(b'{"version":1,"entries":[{"type":"dir","name":"\\ud800"}]}', id="half a character"),
        pytest.param(b'{"version":1,"entries":[{"type":"dir","name":"\xff"}]}', id="no UTF-8"),
        pytest.param(b'{"version":1,"entries":[{"type":"dir","name":"\\uFFFD"}]}', id="what Go makes of it"),
        pytest.param(b'{"version":1' + b"0" * 5000 + b',"entries":[]}', id="a number without end"),
        pytest.param(b'{"version":1e400,"entries":[]}', id="a number that is infinite"),
    ],
)
def test_what_is_no_toc_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidToc):
        read_raw(raw)


def test_more_entries_than_the_settings_allow_are_refused() -> None:
    few = [directory(str(number)) for number in range(11)]

    with pytest.raises(BudgetExceeded, match="max_entries is 10"):
        read(*few, budgets=Budgets(max_entries=10))

    assert len(read(*few[:10], budgets=Budgets(max_entries=10)).entries) == 10


def test_far_too_many_entries_are_refused_before_anything_is_made_of_them() -> None:
    raw = b'{"version":1,"entries":[' + b"{}," * 1_000_000

    with pytest.raises(BudgetExceeded, match="braces"):
        read_raw(raw, budgets=Budgets(max_entries=100_000))


@pytest.mark.long
def test_a_million_entries_are_read() -> None:
    """In about 0.4 kB of memory each; the process that reads them has no other work to lose."""
    entries = ",".join(f'{{"type":"fifo","name":"{number // 1000}/{number}"}}' for number in range(1_000_000))
    raw = f'{{"version":1,"entries":[{entries}]}}'.encode()

    assert len(read_raw(raw).entries) == 1_000_000
    with pytest.raises(BudgetExceeded, match="1000000 entries"):
        read_raw(raw, budgets=Budgets(max_entries=999_999))


def test_files_larger_than_a_layer_may_be_are_refused() -> None:
    with pytest.raises(BudgetExceeded, match="max_layer_bytes is 100"):
        read(file("a", size=60), file("b", size=60, offset=200), budgets=Budgets(max_layer_bytes=100))


def test_files_larger_than_any_compression_makes_them_are_refused() -> None:
    with pytest.raises(BudgetExceeded, match="max_ratio"):
        read(chunked(size=1 << 40), kind=CHUNKED)


def test_more_bytes_of_attributes_than_the_settings_allow_are_refused() -> None:
    with pytest.raises(BudgetExceeded, match="max_pax_bytes"):
        read(file(xattrs={"user.a": "AAAA" * 100}), budgets=Budgets(max_pax_bytes=100))


def test_more_attributes_than_an_archive_can_say_are_refused() -> None:
    with pytest.raises(BudgetExceeded, match="20001 xattrs"):
        read(file(xattrs={f"user.{number}": "" for number in range(20_001)}))


def test_a_long_chain_of_hard_links_is_followed_once() -> None:
    """Not from each of its links again, which would take minutes; nor by calls, which would end at 1000."""
    chain = [link(f"{number}", f"{number + 1}") for number in range(50_000)]

    assert len(read(*chain, file("50000")).entries) == 50_001


@pytest.mark.parametrize(
    "name",
    [
        "trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.overlay.metacopy",
        "trusted.overlay.origin", "user.overlay.opaque", "user.overlay.redirect", "user.overlay.metacopy",
        "user.overlay.whiteout", "user.containers.override_stat", "user.fuseoverlayfs.opaque",
        "security.selinux", "security.ima", "security.evm", "system.nfs4_acl", "unknown.name",
    ],
)  # fmt: skip
def test_an_attribute_that_would_speak_to_the_machine_never_reaches_a_disk(name: str) -> None:
    (entry,) = read(file(xattrs={name: "eQ==", "user.fine": "eQ=="})).entries

    assert entry.member.xattrs is not None
    assert kept_xattrs(entry.member.xattrs, entry.member.name) == {b"user.fine": b"y"}
