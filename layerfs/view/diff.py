"""``diff/``: a layer exactly as in its archive, markers among the files.

What stands beside the markers for the kernel alone is left out.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from stat import S_ISREG
from typing import Final

from layerfs.layer.kinds import is_whiteout
from layerfs.layer.paths import join
from layerfs.view.content import LayerTree, is_directory
from layerfs.view.directory import LISTED_AT_ONCE, ContentDirectory
from layerfs.view.nodes import FileStatus, Node
from layerfs.view.presence import Presence

FORM: Final = b"diff"


class LayerDirectory(ContentDirectory):
    """A directory of one layer; a subclass says which of its entries it shows."""

    __slots__ = ("path", "tree")

    def __init__(self, ino: int, tree: LayerTree, path: bytes, status: FileStatus) -> None:
        super().__init__(ino, tree.attributes(path, status))
        self.tree = tree
        self.path = path

    @property
    def presence(self) -> Presence | None:
        """That of the layer."""
        return self.tree.presence

    def find(self, name: bytes) -> Node | None:
        """Return one entry. Raises OSError."""
        return self.entry(name, self.tree.source.lstat(join(self.path, name)))

    def find_all(self, names: Sequence[bytes]) -> Sequence[Node | None]:
        """Return some entries. Raises OSError."""
        return list(map(self.entry, names, self.tree.source.statuses(self.path, names)))

    def names(self) -> Iterator[bytes | None]:
        """Yield all names that the disk has, None for what stands beside markers. Raises OSError."""
        return (None if kind is None else name for name, kind in self.tree.source.kinds(self.path))

    def read_xattrs(self) -> Mapping[bytes, bytes]:
        """Return the attributes that the layer has. Raises OSError."""
        return self.tree.xattrs(self.path)

    @abstractmethod
    def entry(self, name: bytes, status: FileStatus | None) -> Node | None:
        """Return what *name* is here, given what the disk has."""


class DiffDirectory(LayerDirectory):
    """A directory in ``diff/``."""

    __slots__ = ()

    def small_listing(self) -> list[tuple[bytes, Node]] | None:
        """Return all entries of a small directory. Raises OSError."""
        found = self.tree.source.scan_small(self.path, LISTED_AT_ONCE)
        if found is None:
            return None
        return [(name, node) for name, status in found if (node := self.entry(name, status)) is not None]

    def entry(self, name: bytes, status: FileStatus | None) -> Node | None:
        """Return what the archive has."""
        if status is None:
            return None
        if S_ISREG(status.st_mode):  # first, as most are
            return self.tree.file(self.path, name, status)
        if is_whiteout(status.st_mode, status.st_rdev):
            return None
        if not is_directory(status):
            return self.tree.file(self.path, name, status)
        tree, path = self.tree, join(self.path, name)
        # A directory has one place in the kernel's tree, so each form has numbers of its own.
        return tree.node(FORM, status, lambda ino: DiffDirectory(ino, tree, path, status))
