"""``diff/``: a layer exactly as in its archive, markers among the files.

What stands beside the markers for the kernel alone is left out. Called by `layerfs.view.layers`.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Final

from layerfs.layer.merge import join
from layerfs.view.content import LayerTree, is_directory, is_overlay_whiteout
from layerfs.view.nodes import FOREVER, Attributes, Node

FORM: Final = b"diff"


class LayerDirectory(Node):
    """A directory of one layer; a subclass says which of its entries it shows."""

    __slots__ = ("_attributes", "_listing", "_xattrs", "path", "tree")

    def __init__(self, ino: int, tree: LayerTree, path: bytes, status: os.stat_result) -> None:
        super().__init__(ino)
        self.tree = tree
        self.path = path
        self._attributes = tree.attributes(path, status)
        self._listing: dict[bytes, Node] | None = None
        self._xattrs: Mapping[bytes, bytes] | None = None

    @property
    def negative_timeout(self) -> float:
        """Without end: the layer's digest says what is not in it."""
        return FOREVER

    def attributes(self) -> Attributes:
        """Return what the layer says."""
        return self._attributes

    def lookup(self, name: bytes) -> Node | None:
        """Return an entry. Raises OSError."""
        if self._listing is not None:
            return self._listing.get(name)
        return self.entry(name, self.tree.lstat(join(self.path, name)))

    def entries(self) -> Sequence[tuple[bytes, Node]]:
        """List all entries, with attributes, at once. Raises OSError."""
        if self._listing is None:
            self._listing = self.read()
        return list(self._listing.items())

    def xattrs(self) -> Mapping[bytes, bytes]:
        """Return the attributes. Raises OSError."""
        if self._xattrs is None:
            self._xattrs = self.read_xattrs()
        return self._xattrs

    def forgotten(self) -> None:
        """Drop what is on disk."""
        self._listing = None
        self._xattrs = None

    def entry(self, name: bytes, status: os.stat_result | None) -> Node | None:
        """Return what *name* is here, given what the disk has."""
        raise NotImplementedError

    def read(self) -> dict[bytes, Node]:
        """Return all entries by name."""
        entries = ((name, self.entry(name, status)) for name, status in self.tree.scan(self.path))
        return {name: node for name, node in entries if node is not None}

    def read_xattrs(self) -> Mapping[bytes, bytes]:
        """Return the attributes that the layer has."""
        return self.tree.xattrs(self.path)


class DiffDirectory(LayerDirectory):
    """A directory in ``diff/``."""

    __slots__ = ()

    def entry(self, name: bytes, status: os.stat_result | None) -> Node | None:
        """Return what the archive has."""
        if status is None or is_overlay_whiteout(status):
            return None
        if not is_directory(status):
            return self.tree.file(self.path, name, status)
        tree, path = self.tree, join(self.path, name)
        # A directory has one place in the kernel's tree, so each form has numbers of its own.
        return tree.node(FORM, status, lambda ino: DiffDirectory(ino, tree, path, status))
