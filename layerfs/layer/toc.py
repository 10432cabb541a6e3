"""What a table of contents says of a layer: members, and where in the blob the bytes of files are. Values.

Made by `layerfs.layer.tocreader`. Pure.
"""

from collections.abc import Iterator

import msgspec

from layerfs.layer.member import Member
from layerfs.oci.digest import Digest, object_id


class Piece(msgspec.Struct, gc=False, array_like=True):
    """A part of a file, and the part of a blob that it can be made from."""

    offset: int
    end: int
    """Bytes [offset, end) of the blob hold it, and maybe more behind it."""
    skip: int
    """Bytes to pass over once these are decompressed."""
    start: int
    """Where it belongs in the file."""
    size: int
    digest: str
    """SHA-256 of its bytes; empty for a hole: that it is zeros is known without them."""


class Content(msgspec.Struct, gc=False, array_like=True):
    """The bytes of a file that has some."""

    digest: str
    """SHA-256 of all of them; empty where the TOC gives those of the pieces alone."""
    size: int
    pieces: list[Piece]
    """In order, without gaps, `size` bytes together."""

    @property
    def id(self) -> str:
        """The name of the object that holds these bytes: `Digest.object_id`.

        Equal names mean equal bytes once these were verified. Two lists of pieces may name the same bytes
        twice. SHA-512 there, so that no file can hash to what stands for the pieces of another.
        """
        if self.digest:
            return object_id(self.digest.partition(":")[2])
        told = "".join(f"{piece.start}:{piece.size}:{piece.digest}\n" for piece in self.pieces)
        return Digest.of(told.encode(), "sha512").object_id


class Entry(msgspec.Struct, gc=False):
    """One entry: what an archive's reader would say of the member, and where its bytes are."""

    member: Member
    """With `stored` 0: no content follows."""
    content: Content | None
    """None for what has no bytes: all but files that are not empty."""


class Toc(msgspec.Struct):
    """A TOC that is being read."""

    entries: Iterator[Entry]
    """In the order of the archive, each judged by itself; of use only if all came: the rules for all of them
    together are the last that is looked at. Raises InvalidToc, BudgetExceeded."""
    split: str
    """The digest of tar-split as it is in the blob; empty if the TOC does not vouch for one."""
