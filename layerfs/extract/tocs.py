"""Fetched bytes to a TOC: verified, decompressed within bounds, parsed.

No I/O: the bytes are in memory, at most `layerfs.oci.toc.TOC_MAX` of them.
"""

from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Final, cast

from layerfs.compression.base import CHUNK, RawStream
from layerfs.compression.formats import FORMATS
from layerfs.errors import InvalidArchive, InvalidToc
from layerfs.layer.budgets import Budgets
from layerfs.layer.footer import FRAME_HEADER
from layerfs.layer.member import Type
from layerfs.layer.paths import shown
from layerfs.layer.tar import BLOCK, TarReader
from layerfs.layer.tarsplit import headers, require_same
from layerfs.layer.toc import Content, Entry, Piece, Toc
from layerfs.layer.tocreader import ESTARGZ_NAME, parse_toc
from layerfs.oci import Digest
from layerfs.oci.toc import TOC_MAX, Stretch, TocKind, TocPlace

_FORMATS: Final = {row.name: row for row in FORMATS}
_AROUND: Final = 1 << 20
"""Bytes of an archive that holds the TOC of eStargz, beside the TOC: headers, padding, its end."""


def read_toc(
    raw: bytes, place: TocPlace, blob_size: int, budgets: Budgets, split: bytes = b""
) -> Iterator[Entry]:
    """Yield the entries of a TOC from its compressed bytes, in the order of the archive, as each is judged.

    They are of use only if all came: the whole is judged last. Where the last bytes of a file end may not be
    known before the next one is asked for.

    *place* says where they are: `layerfs.layer.footer` has completed it where annotations do not. *split* are
    the bytes of tar-split, of use for those TOCs alone that have its digest.

    eStargz's own TOC is an entry, too, as its landmarks are: they are members of the archive, and whoever
    extracts that has them. Raises InvalidToc, BudgetExceeded, DigestMismatch, SizeMismatch, OutOfMemory.
    """
    toc, own = _open(raw, place, blob_size, budgets)
    if place.kind is TocKind.ZSTD_CHUNKED and toc.split:
        yield from _compared(toc.entries, toc.split, place, split, budgets)
    else:
        yield from toc.entries
    if own:
        yield own


def _open(raw: bytes, place: TocPlace, blob_size: int, budgets: Budgets) -> tuple[Toc, Entry | None]:
    """Return a TOC, verified, and the entry of the file that eStargz's own is. Raises as `read_toc`."""
    stretch = place.stretch
    assert stretch is not None, "whoever fetched the TOC knew where it is"
    if stretch.end > blob_size:
        raise InvalidToc(f"TOC: {stretch.length} bytes at {stretch.start} of a blob of {blob_size}")
    own = None
    if place.kind is TocKind.ESTARGZ:
        json, own = _from_archive(raw, place, stretch)
    elif place.kind is TocKind.STARGZ_ZSTD:
        json = unpack(raw, "zstd", stretch)
        place.digest.check(json, "TOC")
    else:
        place.digest.check(raw, "TOC", size=stretch.length)
        json = unpack(raw, "zstd", stretch)
    data_end = stretch.start - (0 if place.kind is TocKind.ESTARGZ else FRAME_HEADER)
    return parse_toc(json, place.kind, data_end, budgets), own


def _from_archive(raw: bytes, place: TocPlace, stretch: Stretch) -> tuple[bytes, Entry]:
    """Return the JSON of eStargz's TOC, verified, and the entry of the file that it is."""
    archive = unpack(raw, "gzip", stretch, TOC_MAX + _AROUND)
    source = MemoryArchive(archive)
    try:
        member = TarReader(source, Budgets()).next()
    except InvalidArchive as exc:
        raise InvalidToc(f"TOC: {exc}") from None
    begin = source.at
    if member is None or (member.name, member.type) != (ESTARGZ_NAME, Type.FILE) or member.extents:
        what = shown(member.name) if member else "nothing"
        raise InvalidToc(f"TOC: an archive with {what} (expected the file {shown(ESTARGZ_NAME)})")
    json = archive[begin : begin + member.stored]
    if len(json) < member.stored:
        raise InvalidToc(f"TOC: {len(json)} bytes of JSON (expected {member.stored}, as the header says)")
    place.digest.check(json, "TOC")
    member.stored = 0
    digest = str(place.digest)
    piece = Piece(stretch.start, stretch.end, begin, 0, member.size, digest)
    return json, Entry(member, Content(digest, member.size, [piece]))


def _compared(
    entries: Iterable[Entry], digest: str, place: TocPlace, split: bytes, budgets: Budgets
) -> Iterator[Entry]:
    """Yield *entries*, and compare all of them with the tar-split. Raises InvalidToc, BudgetExceeded."""
    if place.split is None:
        raise InvalidToc("TOC: it demands a tar-split, but no annotation says where one is")
    Digest.parse(digest).check(split, "tar-split", size=place.split.length)
    passed = []
    for entry in entries:
        passed.append(entry)
        yield entry
    require_same(passed, headers(unpack(split, "zstd", place.split), budgets))


def unpack(raw: bytes, name: str, stretch: Stretch, most: int = TOC_MAX) -> bytes:
    """Return *raw* decompressed: the bytes that *stretch* says, or up to *most*.

    Raises InvalidToc, OutOfMemory.
    """
    wanted = stretch.unpacked
    limit = most if wanted is None else min(wanted, most)
    stream = _FORMATS[name].open(cast("RawStream", BytesIO(raw)))
    found, buffer = bytearray(), memoryview(bytearray(CHUNK))
    try:
        while len(found) <= limit and (size := stream.readinto(buffer)):
            found += buffer[:size]
    except InvalidArchive as exc:
        raise InvalidToc(f"TOC: {exc}") from None
    finally:
        stream.close()
    if len(found) > limit or (wanted is not None and len(found) != wanted):
        much = f"more than {limit}" if len(found) > limit else str(len(found))
        raise InvalidToc(f"TOC: {much} bytes unpacked (expected {wanted or f'at most {limit}'})")
    return bytes(found)


class MemoryArchive:
    """An archive in memory, for `TarReader`."""

    def __init__(self, archive: bytes) -> None:
        self._archive = archive
        self.at = 0

    def block(self) -> bytes:
        """Return the next 512 bytes, nothing at the end."""
        return self.read(BLOCK) if self.at < len(self._archive) else b""

    def read(self, size: int) -> bytes:
        """Return the next *size* bytes and pass over their padding. Raises InvalidArchive for fewer."""
        found = self._archive[self.at : self.at + size]
        if len(found) < size:
            raise InvalidArchive("the archive is truncated")
        self.at += size + -size % BLOCK
        return found
