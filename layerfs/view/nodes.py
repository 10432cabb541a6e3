"""The node contract: what every name in the mount can do, without ever waiting.

An operation answers from memory or from a local published tree, or returns a `Need`. Bytes for names from
end to end. Subclasses override what their kind of file supports; the rest answers as the kernel would.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from errno import EINVAL, ENOTDIR
from typing import Final, NamedTuple, Protocol

import msgspec

from layerfs.needs import Need

FOREVER = 1e9
"""Seconds; the timeout of what cannot change because its digest names it."""


_BLOCK: Final = 512


class Attributes(msgspec.Struct):
    """What stat(2) shows. Times in nanoseconds, *blocks* in units of 512 bytes."""

    mode: int
    size: int = 0
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    blocks: int = 0
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0


class FileStatus(Protocol):
    """What lstat(2) says of a file; times in nanoseconds."""

    @property
    def st_mode(self) -> int:
        """Kind and permissions."""

    @property
    def st_ino(self) -> int:
        """The number of the file in its layer."""

    @property
    def st_nlink(self) -> int:
        """How many names it has."""

    @property
    def st_uid(self) -> int:
        """Its owner."""

    @property
    def st_gid(self) -> int:
        """Its group."""

    @property
    def st_rdev(self) -> int:
        """The device that it is."""

    @property
    def st_size(self) -> int:
        """Its bytes."""

    @property
    def st_blocks(self) -> int:
        """Its blocks of 512 bytes, as the disk counts them."""

    @property
    def st_atime_ns(self) -> int:
        """When it was read."""

    @property
    def st_mtime_ns(self) -> int:
        """When its content changed."""

    @property
    def st_ctime_ns(self) -> int:
        """When it came to the disk; tells it from another file that has its number later."""


def blocks_of(size: int) -> int:
    """Return how many blocks of 512 bytes *size* fills."""
    return (size + _BLOCK - 1) // _BLOCK


def blocks_shown(size: int, stored: int) -> int:
    """Return how many blocks a file of *size* bytes has for others if the disk has *stored*: fewer for holes.

    What the disk uses depends on its form and may be 0 for a full file, which GNU tar takes for a hole.
    """
    full = (size + _BLOCK - 1) // _BLOCK
    return full if stored >= full else stored or 1


class FileContent(NamedTuple):
    """A regular file on disk, opened by the edge: ``os.open(path, O_RDONLY|O_NOFOLLOW, dir_fd=dir_fd)``."""

    dir_fd: int
    path: bytes
    size: int


class BytesContent(msgspec.Struct, frozen=True):
    """A small file held in memory."""

    data: bytes


Content = FileContent | BytesContent


class Entries(Protocol):
    """A listing that may be kept: some entries at a time, by their place."""

    def __len__(self) -> int:
        """Return how many entries there are."""

    def __getitem__(self, part: slice, /) -> Sequence[tuple[bytes, "Node"]]:
        """Return the entries from ``part.start`` to ``part.stop``."""

    def __iter__(self) -> Iterator[tuple[bytes, "Node"]]:
        """Yield all entries."""


class LongEntries(ABC):
    """A listing that is too long to be kept, for one reader."""

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[bytes, "Node"]]:
        """Yield all entries, wherever the reader is."""

    @abstractmethod
    def seek(self, position: int) -> bool:
        """Go some way towards the entry number *position*; say whether it is reached. Raises OSError."""

    @abstractmethod
    def next_entries(self) -> Sequence[tuple[bytes, "Node"]] | None:
        """Return some entries or none, None at the end; the reader stays where he is. Raises OSError."""

    @abstractmethod
    def advance(self, count: int) -> None:
        """Go *count* of them forward."""


class Node:
    """One file, directory or link of the mount. Equal inode numbers mean the same object.

    The edge may keep a prepared answer only while both timeouts are FOREVER, and the pages of a file only
    then too: bytes of a file whose attributes may change are read past the page cache (direct I/O).
    """

    __slots__ = ("__weakref__", "edge", "identity", "ino", "lookups", "reply")

    def __init__(self, ino: int) -> None:
        self.ino = ino
        self.identity: Hashable = None
        """What this node stands for, set by `InodeTable.add`: two things may want one number."""
        self.lookups = 0
        """How often the kernel was told of it, less what it has forgotten; `InodeTable` counts."""
        self.reply: object | None = None
        """Where the kernel edge keeps its prepared reply."""
        self.edge: object | None = None
        """Where the kernel edge keeps what else it has prepared."""

    @property
    def entry_timeout(self) -> float:
        """Seconds for which the kernel may believe the name; what changes says so by overriding."""
        return FOREVER

    @property
    def attribute_timeout(self) -> float:
        """Seconds for which the kernel may believe the attributes."""
        return FOREVER

    @property
    def negative_timeout(self) -> float:
        """Seconds for which a name that this directory lacks stays absent; FOREVER below a digest."""
        return 0.0

    def attributes(self) -> Attributes:
        """Return the attributes; never waits. Raises OSError."""
        raise NotImplementedError

    def pop_status(self) -> FileStatus | None:
        """Return what lstat(2) said, if that is all that `attributes` would say; at most once.

        Reading it is quicker; keeping it would cost more memory than all the rest of a node.
        """
        return None

    def blocks(self, status: FileStatus) -> int:
        """Return how many blocks of 512 bytes to show of what `pop_status` returned."""
        return blocks_shown(status.st_size, status.st_blocks)

    def lookup(self, name: bytes) -> "Node | Need | None":
        """Return the entry *name* of this directory, None if there is none. Raises OSError."""
        raise NotADirectoryError(ENOTDIR, "not a directory")

    def entries(self) -> Entries | LongEntries | Need:
        """Return the listing of this directory, without ``.`` and ``..``. Raises OSError."""
        raise NotADirectoryError(ENOTDIR, "not a directory")

    def is_passing(self, child: "Node") -> bool:
        """Say whether the kernel need not remember *child* of this directory: there may be any number."""
        return False

    def readlink(self) -> bytes | Need:
        """Return the target of this symlink. Raises OSError."""
        raise OSError(EINVAL, "not a symlink")

    def open(self) -> Content | Need:
        """Return what reading this file yields. Raises OSError."""
        raise OSError(EINVAL, "not a regular file")

    def xattrs(self) -> Mapping[bytes, bytes]:
        """Return all extended attributes; never waits. Raises OSError."""
        return {}

    def forgotten(self) -> None:
        """Drop what can be had again: the kernel holds no reference to this node any more."""
