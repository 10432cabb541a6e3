"""What the edge keeps for a node while the kernel knows it: ready attributes, listing, attribute names.

Built once, since making an answer costs more than giving it (facts/fuse-speed.md section 3); kept only
while both timeouts of the node are FOREVER. Called by `operations` and `files`.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from pyfuse3 import EntryAttributes, FileInfo

from layerfs.view.nodes import FOREVER, Node

BLOCK_SIZE: Final = 4096

Listing = Sequence[tuple[bytes, Node]]


class Prepared:
    """The kept answers of one node; None where nobody has asked yet."""

    __slots__ = ("entry", "file", "listing", "stored", "xattrs")

    def __init__(self, entry: EntryAttributes) -> None:
        self.entry = entry
        self.listing: Listing | None = None
        self.xattrs: Mapping[bytes, bytes] | None = None
        self.file: FileInfo | None = None
        self.stored = False
        """Whether its bytes were put into the page cache once; see `files`."""


def is_lasting(node: Node) -> bool:
    """Say whether answers about *node* may be kept, and its bytes stay in the page cache."""
    return node.attribute_timeout >= FOREVER and node.entry_timeout >= FOREVER


def prepared(node: Node) -> Prepared | None:
    """Return what is kept for *node*, made if need be; None if its answers may change. Raises OSError."""
    kept = node.edge
    if kept is None and is_lasting(node):
        kept = node.edge = Prepared(_make_entry(node))
    return kept  # type: ignore[return-value]  # nobody but this module writes it


def entry_of(node: Node) -> EntryAttributes:
    """Return the reply that describes *node*. Raises OSError."""
    kept = node.edge
    if kept is None:
        kept = prepared(node)
        if kept is None:
            return _make_entry(node)
    return kept.entry  # type: ignore[attr-defined, no-any-return]  # nobody but this module writes it


def _make_entry(node: Node) -> EntryAttributes:
    attributes = node.attributes()
    entry = EntryAttributes()
    entry.st_ino = node.ino
    entry.entry_timeout = node.entry_timeout
    entry.attr_timeout = node.attribute_timeout
    entry.st_mode = attributes.mode
    entry.st_nlink = attributes.nlink
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = attributes.rdev
    entry.st_size = attributes.size
    entry.st_blksize = BLOCK_SIZE
    entry.st_blocks = attributes.blocks
    entry.st_atime_ns = attributes.atime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns
    return entry


def absent_entry(timeout: float) -> EntryAttributes:
    """Return the reply for a name that stays absent for *timeout* seconds; it counts as no lookup."""
    entry = EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = timeout
    return entry
