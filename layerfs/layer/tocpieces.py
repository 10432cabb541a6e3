"""Where the bytes of a file are in its blob, as a TOC says it. Pure; private to `layerfs.layer.tocreader`.

In eStargz, and in what stargz-snapshotter calls zstd:chunked, each chunk begins a member of gzip or a frame
of zstd, or follows others in one at an inner offset; its end is not said. In zstd:chunked of
containers/storage the chunks of a file are frames side by side, and the end of the last is said.
"""

import re
from typing import Final

from layerfs.errors import InvalidToc
from layerfs.layer.paths import shown
from layerfs.layer.toc import Content, Piece
from layerfs.layer.tocjson import EntryJson
from layerfs.oci.digest import Digest
from layerfs.oci.toc import TocKind

SKIP_MAX: Final = 64 << 20
"""Bytes that may have to be decompressed before a chunk begins; stargz-snapshotter puts at most some
megabytes of small files together (``--estargz-min-chunk-size``)."""

_SKIPPED_FOR_EACH: Final = 8
"""Bytes in front of all chunks of a file for each byte of it: each chunk is decompressed alone."""

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}").fullmatch
_OF_NOTHING: Final = str(Digest.of(b""))
_ZEROS: Final = "zeros"


class PieceReader:
    """Reads the places of one TOC's files, in the order of the blob."""

    def __init__(self, kind: TocKind, data_end: int) -> None:
        self._says_ends = kind is TocKind.ZSTD_CHUNKED
        self._data_end = data_end
        self._passed = 0
        """The offset in front of which all data has been listed, or up to which it is known to begin."""
        self._inner = 0
        """The end of the last chunk in what is decompressed from the offset where it began."""
        self._sizes: dict[str, int] = {}
        """Bytes of files by their digest."""
        self._open: list[Piece] = []
        """Pieces from one offset, whose end is not known yet."""

    def content(self, json: EntryJson, chunks: list[EntryJson]) -> Content:
        """Return where the bytes of a file are. Raises InvalidToc."""
        digest, size = json.digest, json.size
        if digest and self._sizes.setdefault(digest, size) != size:
            raise _wrong(json, f"{size} bytes with the digest of {self._sizes[digest]} bytes")
        if (
            chunks
            or json.chunk_offset
            or json.inner_offset
            or json.chunk_type
            or json.chunk_size not in (0, size)
            or json.chunk_digest not in ("", digest)
            or not _DIGEST(digest)
        ):
            return self._several(json, chunks)
        only = Piece(json.offset, 0, 0, 0, size, digest)  # as most files are, and as `_several` would say
        self._place(only, json)
        if self._says_ends:
            self._end(only, json)
        return Content(digest, size, [only])

    def _several(self, json: EntryJson, chunks: list[EntryJson]) -> Content:
        pieces = []
        at = 0
        if json.digest:
            check_digest(json.digest, shown(json.name.encode()))
        for chunk in (json, *chunks):
            piece = self._piece(json, chunk, at, only=not chunks)
            pieces.append(piece)
            at += piece.size
            self._place(piece, json)
        if at != json.size:
            raise _wrong(json, f"chunks of {at} bytes together (expected {json.size})")
        passed, most = sum(piece.skip for piece in pieces), SKIP_MAX + _SKIPPED_FOR_EACH * json.size
        if passed > most:
            raise _wrong(json, f"{passed} bytes in front of its chunks (expected at most {most})")
        if self._says_ends:
            self._end(pieces[-1], json)
        return Content(json.digest, json.size, pieces)

    def finish(self) -> None:
        """Give the last pieces their end."""
        self._close(self._data_end)

    def _piece(self, json: EntryJson, chunk: EntryJson, at: int, *, only: bool) -> Piece:
        if chunk.name != json.name:
            raise _wrong(json, f"a chunk of {chunk.name[:100]!r} follows it")
        if chunk.chunk_offset != at:
            raise _wrong(json, f"a chunk at {chunk.chunk_offset} (expected at {at}, behind the one before)")
        size = chunk.chunk_size or json.size - at
        if not 0 < size <= json.size - at:
            raise _wrong(json, f"a chunk of {size} bytes at {at} of {json.size}")
        is_hole = chunk.chunk_type == _ZEROS
        if chunk.chunk_type and not (is_hole and self._says_ends):
            raise _wrong(json, f"a chunk of type {chunk.chunk_type[:40]!r}")
        skip = chunk.inner_offset
        if not 0 <= skip <= SKIP_MAX or (skip and self._says_ends):
            raise _wrong(
                json, f"inner offset {skip} (expected 0 to {SKIP_MAX}; 0 for {TocKind.ZSTD_CHUNKED.value})"
            )
        return Piece(chunk.offset, 0, skip, at, size, "" if is_hole else _digest_of(json, chunk, only=only))

    def _place(self, piece: Piece, json: EntryJson) -> None:
        """Take *piece* as the next in the blob; what was before it ends here."""
        offset = piece.offset
        # Small files may be packed together with what is in front of them; else a header is there.
        if not int(self._says_ends) <= offset < self._data_end:
            raise _wrong(json, f"offset {offset} (expected it in front of the TOC, at {self._data_end})")
        if self._open and offset == self._open[0].offset and not self._says_ends:
            if piece.skip < self._inner:
                raise _wrong(
                    json, f"inner offset {piece.skip} (expected {self._inner} or more, behind the one before)"
                )
        elif offset < self._passed:
            raise _wrong(json, f"offset {offset} (expected {self._passed} or more, behind the one before)")
        else:
            self._close(offset)
        self._open.append(piece)
        self._inner = piece.skip + piece.size
        self._passed = offset + 1

    def _end(self, last: Piece, json: EntryJson) -> None:
        if not last.offset < json.end_offset <= self._data_end:
            raise _wrong(json, f"end {json.end_offset} (expected behind its data, at most {self._data_end})")
        self._close(json.end_offset)
        self._passed = json.end_offset

    def _close(self, end: int) -> None:
        for piece in self._open:
            piece.end = end
        self._open.clear()


def _digest_of(json: EntryJson, chunk: EntryJson, *, only: bool) -> str:
    """Return the digest of *chunk*'s bytes; the *only* one of a file may leave it to the file's."""
    found = chunk.chunk_digest
    if only and json.digest:
        if found and found != json.digest:
            raise _wrong(json, f"digest {json.digest[:80]}, but its only chunk's is {found[:80]}")
        found = json.digest
    if not found:
        raise _wrong(json, f"no digest for the bytes at {chunk.chunk_offset}")
    check_digest(found, shown(json.name.encode()))
    return found


def check_nothing(json: EntryJson) -> None:
    """Raise InvalidToc for an empty file that is said to have other bytes than none."""
    for digest in (json.digest, json.chunk_digest):
        if digest and digest != _OF_NOTHING:
            raise _wrong(json, f"an empty file with the digest {digest[:80]} (expected {_OF_NOTHING})")


def check_digest(digest: str, what: str) -> None:
    """Raise InvalidToc unless *digest*, that of *what*, is one."""
    if _DIGEST(digest) is None:
        raise InvalidToc(
            f"TOC: {what}: digest {digest[:80]!r} (expected sha256: and 64 lowercase hex digits)"
        )


def _wrong(json: EntryJson, what: str) -> InvalidToc:
    return InvalidToc(f"TOC: {shown(json.name.encode())}: {what}")
