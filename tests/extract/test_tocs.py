"""Fetched bytes to a TOC: what is verified before it is read, and how much of it is unpacked."""

import gzip
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import DigestMismatch, InvalidToc, LayerfsError, SizeMismatch
from layerfs.extract import tocs
from layerfs.extract.tocs import read_toc
from layerfs.layer.budgets import Budgets
from layerfs.layer.footer import FRAME_HEADER
from layerfs.layer.toc import Entry
from layerfs.layer.tocreader import parse_toc
from layerfs.oci import Digest
from layerfs.oci.toc import Stretch, TocKind, TocPlace
from tests.layer.headers import END, header, member
from tests.layer.tocs import directory, raw
from tests.support import lazy_images
from tests.support.lazy_layers import place_of

ONE = raw(directory("d"))
BOMB_SIZE = 64 << 20
START = 1000


def packed(content: bytes) -> bytes:
    """Return a frame of zstd."""
    return zstandard.ZstdCompressor(level=3).compress(content)


def place(
    kind: TocKind, content: bytes, digest_of: bytes, unpacked: int | None = None, **more: Any
) -> TocPlace:
    """Return a place that fits to compressed *content*."""
    return TocPlace(kind, Digest.of(digest_of), Stretch(START, len(content), unpacked), **more)


def chunked(content: bytes = ONE, **more: Any) -> list[Entry]:
    """Read *content* as a TOC of zstd:chunked; arguments replace what fits to it."""
    blob = more.pop("blob", packed(content))
    where = place(TocKind.ZSTD_CHUNKED, blob, blob, len(content))
    fetched = more.pop("fetched", b"")
    return list(read_toc(blob, msgspec.structs.replace(where, **more), 10_000, Budgets(), fetched))


def estargz(archive: bytes, digest_of: bytes = ONE) -> list[Entry]:
    """Read the archive with the TOC of eStargz."""
    blob = gzip.compress(archive)
    return list(read_toc(blob, place(TocKind.ESTARGZ, blob, digest_of), 100_000, Budgets()))


def test_a_toc_is_read_once_its_digest_is_right() -> None:
    assert [entry.member.name for entry in chunked()] == [b"d"]


def test_other_bytes_are_refused_before_they_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tocs, "unpack", lambda *_: pytest.fail("unpacked"))

    with pytest.raises(DigestMismatch):
        chunked(digest=Digest.of(b"other"))
    with pytest.raises(SizeMismatch):
        chunked(stretch=Stretch(START, 5, len(ONE)))


@pytest.mark.parametrize("kind", [TocKind.ESTARGZ, TocKind.STARGZ_ZSTD])
def test_other_json_is_refused_before_it_is_read(kind: TocKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tocs, "parse_toc", lambda *_: pytest.fail("parsed"))
    is_zstd = kind is TocKind.STARGZ_ZSTD
    blob = packed(ONE) if is_zstd else gzip.compress(member(ONE, name=b"stargz.index.json") + END)

    with pytest.raises(DigestMismatch):
        list(read_toc(blob, place(kind, blob, b"other", len(ONE) if is_zstd else None), 10_000, Budgets()))


@pytest.mark.parametrize("said", [len(ONE) - 1, len(ONE) + 1, 1])
def test_a_toc_of_another_size_than_said_is_refused(said: int) -> None:
    where = Stretch(START, len(packed(ONE)), said)

    with pytest.raises(InvalidToc, match="bytes unpacked"):
        chunked(stretch=where)


def test_a_bomb_is_unpacked_as_far_as_was_said() -> None:
    """64 MiB in 2 kB; that no more than 128 KiB is unpacked beyond what was said, the text tells."""
    bomb = bytes(BOMB_SIZE)
    with pytest.raises(InvalidToc, match="more than 1000 bytes"):
        chunked(bomb, stretch=Stretch(START, len(packed(bomb)), 1000))


def test_a_bomb_of_estargz_ends_at_the_most_that_a_toc_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tocs, "TOC_MAX", 1 << 20)

    with pytest.raises(InvalidToc, match="more than 2097152 bytes"):
        estargz(bytes(BOMB_SIZE))


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        pytest.param(b"", "an archive with nothing", id="nothing"),
        pytest.param(END, "an archive with nothing", id="an empty archive"),
        pytest.param(b"x" * 512, "no tar archive", id="no archive"),
        pytest.param(member(ONE, name=b"other.json") + END, "other.json", id="another name"),
        pytest.param(header(b"stargz.index.json", size=500) + ONE, "70 bytes of JSON", id="cut off"),
        pytest.param(header(b"stargz.index.json", b"2", link=b"a"), "stargz.index.json", id="a symlink"),
        pytest.param(header(b"stargz.index.json", b"S", size=512), "TOC: ", id="a sparse file"),
    ],
)
def test_an_archive_without_the_toc_is_refused(archive: bytes, why: str) -> None:
    with pytest.raises((InvalidToc, DigestMismatch), match=why):
        estargz(archive)


def test_a_toc_outside_of_the_blob_is_refused() -> None:
    blob = packed(ONE)

    with pytest.raises(InvalidToc, match="of a blob of 1010"):
        list(read_toc(blob, place(TocKind.ZSTD_CHUNKED, blob, blob, len(ONE)), START + 10, Budgets()))


def test_a_tar_split_that_the_toc_does_not_vouch_for_is_not_read() -> None:
    """Whoever made the registry's bytes could say anything in it."""
    assert len(chunked(split=Stretch(5000, 7, 7), fetched=b"rubbish")) == 1


@pytest.mark.parametrize(
    ("fetched", "where", "error", "why"),
    [
        pytest.param(b"", None, InvalidToc, "no annotation", id="no place"),
        pytest.param(b"rubbish", Stretch(5000, 7, 7), DigestMismatch, "tar-split", id="other bytes"),
        pytest.param(b"rub", Stretch(5000, 7, 7), SizeMismatch, "tar-split", id="too few bytes"),
    ],
)
def test_a_tar_split_that_the_toc_vouches_for_must_be_that(
    fetched: bytes, where: Stretch | None, error: type[Exception], why: str
) -> None:
    content = raw(directory("d"), tarSplitDigest=str(Digest.of(b"the split")))

    with pytest.raises(error, match=why):
        chunked(content, split=where, fetched=fetched)


def test_the_toc_of_estargz_is_a_file_of_the_layer() -> None:
    (_, own) = estargz(member(ONE, name=b"stargz.index.json", mode=0o444) + END)

    assert (own.member.name, own.member.mode, own.member.size) == (b"stargz.index.json", 0o444, len(ONE))
    assert own.content is not None
    (piece,) = own.content.pieces
    assert (piece.offset, piece.skip, piece.size, piece.digest) == (START, 512, len(ONE), str(Digest.of(ONE)))


@pytest.mark.parametrize("kind", lazy_images.LAZY)
@given(at=st.integers(0, 1 << 20), bits=st.integers(1, 255))
def test_a_damaged_toc_is_refused_or_sound(kind: str, at: int, bits: int) -> None:
    """Damaged is the JSON; its digest is right, so that it is read."""
    built = lazy_images.load(kind)
    found = place_of(built, 0)
    stretch, blob = found.stretch, built.layers[0].blob
    assert stretch is not None
    if found.kind is TocKind.ESTARGZ:
        content = gzip.decompress(blob[stretch.start : stretch.end])
        size = int(content[124:135], 8)
        content = content[512 : 512 + size]
    else:
        content = zstandard.ZstdDecompressor().decompress(
            blob[stretch.start : stretch.end], max_output_size=stretch.unpacked or 0
        )
    at %= len(content)
    content = content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]
    try:
        entries = list(parse_toc(content, found.kind, stretch.start - FRAME_HEADER, Budgets()).entries)
    except LayerfsError:
        return
    for entry in entries:
        if entry.content is not None:
            assert sum(piece.size for piece in entry.content.pieces) == entry.member.size
            assert all(0 <= piece.offset < piece.end <= stretch.start for piece in entry.content.pieces)
