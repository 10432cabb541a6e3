"""What the edge keeps for a node while the kernel knows it: ready attributes, listing, attribute names.

Built once: making an EntryAttributes takes longer than the rest of a request's Python. Kept only while both
timeouts of the node are FOREVER.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias, cast

from pyfuse3 import EntryAttributes, FileInfo

from layerfs.host.objects import places_of, put_number
from layerfs.view.nodes import FOREVER, Attributes, Entries, FileStatus, Node

BLOCK_SIZE: Final = 4096

Xattrs: TypeAlias = Mapping[bytes, bytes]


class Prepared:
    """The kept answers of one node, but for its attributes; None where nobody has asked yet."""

    __slots__ = ("file", "listing", "stored", "xattrs")

    def __init__(self) -> None:
        self.listing: Entries | None = None
        self.xattrs: Xattrs | None = None
        self.file: FileInfo | None = None
        self.stored = False
        """Whether its bytes were put into the page cache once; see `files`."""


_always: dict[type[Node], bool] = {}
"""Which classes have nodes that never change: those that override none of the timeouts."""


def is_lasting(node: Node) -> bool:
    """Say whether answers about *node* may be kept, and its bytes stay in the page cache."""
    cls = type(node)
    always = _always.get(cls)
    if always is None:
        always = _always[cls] = (
            cls.attribute_timeout is Node.attribute_timeout and cls.entry_timeout is Node.entry_timeout
        )
    return always or (node.attribute_timeout >= FOREVER and node.entry_timeout >= FOREVER)


def prepared(node: Node) -> Prepared | None:
    """Return what is kept for *node*, made if need be; None if its answers may change."""
    kept = node.edge
    if kept is None and is_lasting(node):
        kept = node.edge = Prepared()
    return cast("Prepared | None", kept)  # nobody but this module writes it


def kept_listing(node: Node) -> Entries | None:
    """Return the listing that is kept for *node*."""
    kept = node.edge
    return None if kept is None else cast("Prepared", kept).listing


def entry_of(node: Node) -> EntryAttributes:
    """Return the reply that describes *node*. Raises OSError."""
    entry = cast("EntryAttributes | None", node.reply)  # nobody but this module writes it
    if entry is None:
        entry = _make_entry(node)
        if is_lasting(node):  # asked now, since looking at attributes may be what makes it so
            node.reply = entry
    return entry


def _place_of_node_id() -> int | None:
    entry = EntryAttributes()
    entry.st_ino = _PROBE
    places = places_of(entry, _PROBE)
    return places[0] if len(places) == 2 else None


_PROBE: Final = 0x6C61796572667321
_NODE_ID: Final = _place_of_node_id()


def passing_entry(node: Node) -> tuple[EntryAttributes, bool]:
    """Return a description of *node* for a listing alone, and whether it counts as a lookup. Raises OSError.

    The kernel takes an entry without the id of a node for a name with number and type, and remembers nothing
    (Linux, fs/fuse/readdir.c, fuse_direntplus_link). pyfuse3 has one attribute for both numbers: so the id is
    written over. Were it kept elsewhere, the entry would count.
    """
    entry = _make_entry(node)
    if _NODE_ID is None:
        return entry, True
    put_number(entry, _NODE_ID, 0)
    return entry, False


def forget(node: Node) -> None:
    """Drop what is kept for *node*."""
    node.reply = node.edge = None


def _make_entry(node: Node) -> EntryAttributes:
    entry = EntryAttributes()
    entry.st_ino = node.ino
    status = node.pop_status()
    if status is None:
        _describe(entry, node.attributes())
    else:
        _copy(entry, status, node)
    if is_lasting(node):
        entry.entry_timeout = entry.attr_timeout = FOREVER
    else:
        entry.entry_timeout = node.entry_timeout
        entry.attr_timeout = node.attribute_timeout
    return entry


def _describe(entry: EntryAttributes, attributes: Attributes) -> None:
    entry.st_mode = attributes.mode
    entry.st_nlink = attributes.nlink
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = attributes.rdev
    entry.st_size = attributes.size
    entry.st_blocks = attributes.blocks
    entry.st_atime_ns = attributes.atime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns


def _copy(entry: EntryAttributes, status: FileStatus, node: Node) -> None:
    entry.st_mode = status.st_mode
    entry.st_nlink = status.st_nlink
    entry.st_uid = status.st_uid
    entry.st_gid = status.st_gid
    entry.st_rdev = status.st_rdev
    entry.st_size = status.st_size
    entry.st_blocks = node.blocks(status)
    entry.st_atime_ns = status.st_atime_ns
    entry.st_mtime_ns = status.st_mtime_ns
    entry.st_ctime_ns = status.st_ctime_ns


def absent_entry(timeout: float) -> EntryAttributes:
    """Return the reply for a name that stays absent for *timeout* seconds; it counts as no lookup."""
    entry = EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = timeout
    return entry
