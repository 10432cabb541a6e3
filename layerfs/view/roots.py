"""The roots of content: known before what is below them, and the only directories that wait for layers.

Decides when a root is ready; attributes and xattrs never wait, so before that they are those of a plain
directory, for no time at all.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final

from layerfs.needs import Need
from layerfs.oci import Digest
from layerfs.view.content import LayerTree
from layerfs.view.diff import DiffDirectory, LayerDirectory
from layerfs.view.lower import LowerDirectory
from layerfs.view.nodes import FOREVER, Attributes, Entries, LongEntries, Node
from layerfs.view.virtual import DIRECTORY_MODE, MountContext, VirtualNode

FORMS: Final[dict[bytes, type[LayerDirectory]]] = {b"diff": DiffDirectory, b"lower": LowerDirectory}


class ContentRoot(VirtualNode, ABC):
    """A directory that is there once layers are; then it answers as the directory on disk."""

    __slots__ = ("_directory",)

    def __init__(self, ino: int, context: MountContext) -> None:
        super().__init__(ino, context)
        self._directory: Node | None = None

    @property
    def attribute_timeout(self) -> float:
        """Nothing as long as the true attributes are not known."""
        return 0.0 if self._directory is None else FOREVER

    @property
    def negative_timeout(self) -> float:
        """Without end: only what is complete says that a name is absent."""
        return FOREVER

    def attributes(self) -> Attributes:
        """Return the layer's attributes, or those of a plain directory of root. Raises OSError."""
        directory = self._look()
        if directory is not None:
            return directory.attributes()
        plain = self.context.attributes(DIRECTORY_MODE)
        plain.uid = plain.gid = 0
        return plain

    def lookup(self, name: bytes) -> Node | Need | None:
        """Return an entry; waits for the layers. Raises OSError, NotInStore."""
        directory = self._look()
        return self.need() if directory is None else directory.lookup(name)

    def entries(self) -> Entries | LongEntries | Need:
        """List the entries; waits for the layers. Raises OSError, NotInStore."""
        directory = self._look()
        return self.need() if directory is None else directory.entries()

    def is_passing(self, child: Node) -> bool:
        """Say what the directory on disk says."""
        return self._directory is not None and self._directory.is_passing(child)

    def xattrs(self) -> Mapping[bytes, bytes]:
        """Return the layer's attributes, none before it is here. Raises OSError."""
        directory = self._look()
        return {} if directory is None else directory.xattrs()

    def forgotten(self) -> None:
        """Drop what is on disk."""
        self._directory = None

    @abstractmethod
    def need(self) -> Need:
        """Return what the root waits for. Raises NotInStore if nothing says where to get it."""

    @abstractmethod
    def find(self) -> Node | None:
        """Return the directory on disk, None if it is not complete. Raises OSError."""

    @abstractmethod
    def is_here(self) -> bool:
        """Say whether the directory that `find` returned is still there."""

    def _look(self) -> Node | None:
        if self._directory is None or not self.is_here():
            self._directory = self.find()
        return self._directory


class LayerRoot(ContentRoot):
    """``diff/`` or ``lower/`` of one layer."""

    __slots__ = ("_digest", "_form")

    def __init__(self, ino: int, context: MountContext, digest: Digest, form: bytes) -> None:
        super().__init__(ino, context)
        self._digest = digest
        self._form = form

    def need(self) -> Need:
        """Return the need for the layer. Raises NotInStore if no known image names it."""
        return self.context.known.layer_need(self._digest)

    def find(self) -> Node | None:
        """Return the root of the extracted layer. Raises OSError."""
        tree = open_tree(self.context, self._digest)
        status = None if tree is None else tree.source.lstat(b"")
        if tree is None or status is None:
            return None
        # It answers for this node and under its number, so it is no node of the table.
        return FORMS[self._form](self.ino, tree, b"", status)

    def is_here(self) -> bool:
        """Say whether the layer is still extracted."""
        return self.context.storage.open_layer(self._digest) is not None


def open_tree(context: MountContext, digest: Digest) -> LayerTree | None:
    """Return the tree of an extracted layer, None if it is not there. Raises OSError."""
    layer = context.storage.open_layer(digest)
    if layer is None:
        return None

    def lacking() -> Need | None:
        gone = context.storage.open_layer(digest) is None
        return context.known.layer_need(digest) if gone else None

    return context.trees.open(layer, lacking)
