"""Nodes that no disk holds: directories, links and texts that the view makes up.

They share a `MountContext`, their attributes are the daemon's own, and their inode number follows from a
key that looks like a path. They never wait.
"""

from collections.abc import Callable, Mapping, Sequence
from stat import S_IFDIR, S_IFLNK, S_IFREG
from typing import Final, TypeVar

import msgspec

from layerfs.catalog.known import KnownImages
from layerfs.catalog.state import why_whole
from layerfs.needs import Need
from layerfs.oci import Platform, Repository
from layerfs.oci.image import ImageLayer
from layerfs.store import ImageStorage
from layerfs.view.content import LayerTrees
from layerfs.view.inodes import InodeTable, number_of
from layerfs.view.nodes import FOREVER, Attributes, BytesContent, Node, blocks_of

DIRECTORY_MODE: Final = S_IFDIR | 0o755
LINK_MODE: Final = S_IFLNK | 0o777
TEXT_MODE: Final = S_IFREG | 0o444
PRIVATE_MODE: Final = S_IFREG | 0o400
"""A file that others may not read in a mount that they may enter has this one."""

N = TypeVar("N", bound=Node)


WhyWhole = Callable[[Repository, ImageLayer], str]


def _always(_: Repository) -> bool:
    return True


def _as_the_manifest_says(_: Repository, layer: ImageLayer) -> str:
    return why_whole(layer)


class MountContext(msgspec.Struct, frozen=True):
    """What all nodes of one tree share."""

    storage: ImageStorage
    mountpoint: bytes
    """Absolute, without a trailing slash."""
    platform: Platform
    inodes: InodeTable
    known: KnownImages
    trees: LayerTrees
    tag_ttl: float | None
    """Seconds after which a pinned tag must be resolved anew; None for never."""
    uid: int
    gid: int
    born_ns: int
    """The time of everything that has no time of its own, in nanoseconds."""
    lazy: Callable[[Repository], bool] = _always
    """Whether layers of a repository may be shown before they are whole."""
    why_whole: WhyWhole = _as_the_manifest_says
    """Says why a layer of a repository cannot be lazy; empty if it can."""

    def node(self, key: bytes, make: Callable[[int], N]) -> N:
        """Return the virtual node called *key*, made if the kernel does not know it."""
        return self.inodes.intern(number_of(key), key, make)

    def attributes(self, mode: int, size: int = 0, mtime_ns: int | None = None) -> Attributes:
        """Return attributes that belong to the daemon.

        A directory has one link: its subdirectories are not counted, and find(1) takes 1 as "unknown".
        """
        time = self.born_ns if mtime_ns is None else mtime_ns
        return Attributes(
            mode=mode,
            size=size,
            uid=self.uid,
            gid=self.gid,
            blocks=blocks_of(size),
            atime_ns=time,
            mtime_ns=time,
            ctime_ns=time,
        )


class VirtualNode(Node):
    """A node with a context."""

    __slots__ = ("context",)

    def __init__(self, ino: int, context: MountContext) -> None:
        super().__init__(ino)
        self.context = context


class VirtualDirectory(VirtualNode):
    """A directory of names that the view makes up."""

    __slots__ = ()

    def attributes(self) -> Attributes:
        """Return a directory of the daemon's owner."""
        return self.context.attributes(DIRECTORY_MODE)


class FixedDirectory(VirtualDirectory):
    """A directory whose entries are the same for the life of the mount."""

    __slots__ = ("_entries",)

    def __init__(self, ino: int, context: MountContext, entries: Mapping[bytes, Node]) -> None:
        super().__init__(ino, context)
        self._entries = entries

    @property
    def negative_timeout(self) -> float:
        """Without end."""
        return FOREVER

    def lookup(self, name: bytes) -> Node | None:
        """Return an entry."""
        return self._entries.get(name)

    def entries(self) -> Sequence[tuple[bytes, Node]]:
        """List the entries."""
        return list(self._entries.items())


class Link(VirtualNode):
    """A symlink whose target is known and never changes."""

    __slots__ = ("_target",)

    def __init__(self, ino: int, context: MountContext, target: bytes) -> None:
        super().__init__(ino, context)
        self._target = target

    def attributes(self) -> Attributes:
        """Return a link of the target's length."""
        return self.context.attributes(LINK_MODE, len(self._target))

    def readlink(self) -> bytes | Need:
        """Return the target."""
        return self._target


class Text(VirtualNode):
    """A small file whose bytes are known and never change."""

    __slots__ = ("_data", "_mtime_ns")

    def __init__(self, ino: int, context: MountContext, data: bytes, mtime_ns: int | None = None) -> None:
        super().__init__(ino, context)
        self._data = data
        self._mtime_ns = mtime_ns

    def attributes(self) -> Attributes:
        """Return a file of the right size."""
        return self.context.attributes(TEXT_MODE, len(self._data), self._mtime_ns)

    def open(self) -> BytesContent:
        """Return the bytes."""
        return BytesContent(self._data)


class ChangingText(VirtualNode):
    """A small file that is written anew each time somebody looks."""

    __slots__ = ("_mode", "_mtime_ns", "_render")

    def __init__(
        self,
        ino: int,
        context: MountContext,
        render: Callable[[], bytes],
        mtime_ns: int | None = None,
        mode: int = TEXT_MODE,
    ) -> None:
        super().__init__(ino, context)
        self._render = render
        self._mtime_ns = mtime_ns
        self._mode = mode

    @property
    def attribute_timeout(self) -> float:
        """Nothing: the size is that of this moment."""
        return 0.0

    def attributes(self) -> Attributes:
        """Return a file of the size that it has now."""
        return self.context.attributes(self._mode, len(self._render()), self._mtime_ns)

    def open(self) -> BytesContent:
        """Return the bytes of now."""
        return BytesContent(self._render())
