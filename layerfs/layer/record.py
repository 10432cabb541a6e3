"""What is known of an extracted layer: counted and computed from its bytes, kept beside the tree."""

from typing import Literal

import msgspec

RECORD_VERSION = 3

OwnerKind = Literal["root", "namespace", "user"]
"""Who writes a tree: root of the machine, root of a user namespace, an ordinary user."""


class Extraction(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass over a blob, or over its TOC, found, in numbers.

    What it lists is in `layerfs.layer.tables`, and for a TOC in `layerfs.layer.contents`.
    """

    digest: str
    """Digest of the blob or the TOC, computed from its bytes."""
    diff_id: str
    """SHA-256 of the uncompressed archive, computed from its bytes (image-spec, config.md).

    Empty for a TOC.
    """
    own_diff_id: str = ""
    """The same in the algorithm of `digest`, where that is not SHA-256."""
    blob_size: int
    tar_size: int
    compression: str
    """What the blob's bytes were, ``none`` or the name of a row of `layerfs.compression.formats`."""
    entries: int
    files: int
    file_bytes: int
    whiteouts: int = 0
    """How many rows the table of this name has, as the three below."""
    opaques: int = 0
    implied: int = 0
    lost: int = 0
    tables: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Bytes of the four tables, in the order of `layerfs.layer.tables.Tables`."""
    objects: int = 0
    """How many different contents the files of a TOC have."""
    contents: int = 0
    """Bytes of the table that says where these are: it follows the four."""
    owner: OwnerKind = "root"
    """Who wrote the tree. On disk all of an ordinary user is his own; an owner that was not lost is 0:0."""

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The digests of the uncompressed archive."""
        return tuple(filter(None, (self.diff_id, self.own_diff_id)))


class Identity(msgspec.Struct, frozen=True):
    """What tells a directory from every copy of it, for as long as it exists."""

    inode: int
    birth_ns: int = 0
    """When it was made, in nanoseconds; 0 where the filesystem does not tell."""

    def is_that_of(self, other: "Identity") -> bool:
        """Say whether both are one directory's.

        The time of birth counts where both know it: overlayfs may number a directory anew, and a filesystem
        that was made anew may give a number again.
        """
        if self.birth_ns and other.birth_ns:
            return self.birth_ns == other.birth_ns
        return self.inode == other.inode


class LayerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a published layer directory, ``extracted/<digest>.json``: a line, then the tables."""

    version: int = RECORD_VERSION
    state: Literal["pending", "durable"]
    boot_id: str
    """The boot in which the tree was written; a pending record of another boot is void."""
    identity: Identity
    """That of the tree. A copy of it may lack anything: owners, attributes, links; so it is void."""
    native: bool
    """Whether the tree has the overlay form beside the markers."""
    escaped: bool = False
    """Whether names in the tree are those of `layerfs.layer.escaping`."""
    layer: Extraction
