"""Where a blob's end says that its TOC is."""

import gzip
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import InvalidToc
from layerfs.layer.footer import locate, tail_of
from layerfs.oci import Digest
from layerfs.oci.toc import TOC_MAX, Stretch, TocKind, TocPlace

SIZE = 10_000
"""Bytes of the blobs of these tests."""
ESTARGZ, ZSTD = (TocPlace(kind, Digest.of(b"")) for kind in (TocKind.ESTARGZ, TocKind.STARGZ_ZSTD))


def member(extra: bytes) -> bytes:
    """Return an empty member of gzip with an extra field (RFC 1952)."""
    empty = gzip.compress(b"", compresslevel=0, mtime=0)
    return (
        empty[:3]
        + b"\x04"
        + empty[4:10]
        + struct.pack("<H", len(extra))
        + extra
        + b"\x01\0\0\xff\xff"
        + bytes(8)
    )


def estargz(start: int | str) -> bytes:
    """Return a footer of eStargz."""
    told = (start if isinstance(start, str) else f"{start:016x}").encode() + b"STARGZ"
    return member(b"SG" + struct.pack("<H", len(told)) + told)


def zstd(
    start: int, length: int = 100, unpacked: int = 500, kind: int = 1, magic: bytes = b"GnUlInUx"
) -> bytes:
    """Return a footer of stargz's zstd:chunked."""
    return struct.pack("<QQQQ", start, length, unpacked, kind) + magic


def test_what_annotations_say_is_not_looked_for() -> None:
    place = TocPlace(TocKind.ESTARGZ, Digest.of(b""), Stretch(5, 10))

    assert locate(place, b"", SIZE) == place


@pytest.mark.parametrize(
    ("place", "footer", "expected"),
    [
        pytest.param(ESTARGZ, estargz(7000), Stretch(7000, SIZE - 51 - 7000), id="eStargz"),
        pytest.param(
            ESTARGZ,
            member(b"%016xSTARGZ" % 7000),
            Stretch(7000, SIZE - 47 - 7000),
            id="stargz",
        ),
        pytest.param(ZSTD, zstd(7000), Stretch(7000, 100, 500), id="stargz's zstd:chunked"),
        pytest.param(ZSTD, zstd(SIZE - 148), Stretch(SIZE - 148, 100, 500), id="in front of the footer"),
    ],
)
def test_a_footer_says_where_the_toc_is(place: TocPlace, footer: bytes, expected: Stretch) -> None:
    found = locate(place, bytes(500) + footer, SIZE)

    assert (found.stretch, found.kind, found.digest) == (expected, place.kind, place.digest)


@pytest.mark.parametrize(
    ("place", "footer", "why"),
    [
        pytest.param(ESTARGZ, b"", "expected one of eStargz", id="no bytes"),
        pytest.param(ESTARGZ, bytes(51), "expected one of eStargz", id="zeros"),
        pytest.param(ESTARGZ, estargz(7000)[1:], "expected one of eStargz", id="cut at its begin"),
        pytest.param(ESTARGZ, estargz(7000)[:-1], "expected one of eStargz", id="cut at its end"),
        pytest.param(ESTARGZ, estargz(7000) + b"\0", "expected one of eStargz", id="something behind it"),
        pytest.param(ESTARGZ, member(b"SG"), "expected one of eStargz", id="an extra field that is cut off"),
        pytest.param(ESTARGZ, member(b""), "expected one of eStargz", id="an empty extra field"),
        pytest.param(ESTARGZ, estargz("-" + "0" * 15), "expected one of eStargz", id="a sign"),
        pytest.param(ESTARGZ, estargz(" " * 12 + "1000"), "expected one of eStargz", id="blanks"),
        pytest.param(ESTARGZ, estargz("0x" + "0" * 10 + "1000"), "expected one of eStargz", id="0x"),
        pytest.param(ESTARGZ, estargz("0" * 12 + "1_00"), "expected one of eStargz", id="an underscore"),
        pytest.param(ESTARGZ, estargz(0), "at 0 of a blob", id="an offset of nothing"),
        pytest.param(ESTARGZ, estargz(SIZE - 51), "TOC of 0 bytes", id="a TOC of nothing"),
        pytest.param(ESTARGZ, estargz(SIZE), "TOC of -51 bytes", id="a TOC behind the footer"),
        pytest.param(ESTARGZ, estargz("f" * 16), "of a blob", id="a TOC far outside"),
        pytest.param(ESTARGZ, member(b"SG\x11\0STARGZEXTERNALTOC"), "external TOC", id="an external TOC"),
        pytest.param(ZSTD, b"", "expected one of stargz's zstd:chunked", id="no bytes for zstd"),
        pytest.param(
            ZSTD,
            zstd(7000, magic=b"GNUlInUx"),
            "expected one of stargz's",
            id="containers/storage's",
        ),
        pytest.param(ZSTD, zstd(7000, kind=2), "kind 2", id="another kind"),
        pytest.param(ZSTD, zstd(7000, unpacked=0), "of kind 1", id="nothing unpacked"),
        pytest.param(ZSTD, zstd(0), "at 0 of", id="an offset of nothing for zstd"),
        pytest.param(ZSTD, zstd(7000, length=0), "TOC of 0 bytes", id="a TOC of nothing for zstd"),
        pytest.param(ZSTD, zstd(SIZE - 147), f"at {SIZE - 147} of", id="a TOC that reaches into the footer"),
        pytest.param(ZSTD, zstd(1 << 63), "of a blob", id="a TOC far outside for zstd"),
        pytest.param(ZSTD, zstd(7000, unpacked=TOC_MAX + 1), "at most", id="a TOC that unpacks to too much"),
        pytest.param(ESTARGZ, zstd(7000), "expected one of eStargz", id="the other format's"),
    ],
)
def test_a_footer_that_says_nothing_useful_is_refused(place: TocPlace, footer: bytes, why: str) -> None:
    with pytest.raises(InvalidToc, match=why):
        locate(place, footer, SIZE)


def test_a_toc_larger_than_any_may_be_is_refused() -> None:
    with pytest.raises(InvalidToc, match=f"at most {TOC_MAX}"):
        locate(ESTARGZ, estargz(100), TOC_MAX + 1000)


@pytest.mark.parametrize(
    ("size", "tail"),
    [(1000, 1000), (64 << 10, 64 << 10), (1 << 20, 64 << 10), (180 << 20, 180 << 10), (1 << 40, 256 << 10)],
)
def test_how_much_of_the_end_of_a_blob_is_asked_for(size: int, tail: int) -> None:
    assert tail_of(size) == tail


@given(st.binary(max_size=60), st.integers(0, 1 << 64), st.sampled_from([ESTARGZ, ZSTD]))
def test_no_footer_leads_out_of_its_blob(noise: bytes, start: int, place: TocPlace) -> None:
    for footer in (noise, estargz(f"{start:016x}"[-16:]), noise + zstd(start % (1 << 64), len(noise))):
        try:
            found = locate(place, footer[-tail_of(SIZE) :], SIZE)
        except InvalidToc:
            continue
        assert found.stretch is not None
        assert 0 < found.stretch.start < found.stretch.end < SIZE
