"""What the edge demands of a tree of nodes. `layerfs.view.tree` builds one; tests have others."""

from typing import Protocol

from layerfs.view.nodes import Node


class Inodes(Protocol):
    """The inode table as the edge uses it; `layerfs.view.inodes.InodeTable` is one."""

    def get(self, ino: int) -> Node:
        """Return a node that the kernel knows. Raises KeyError."""

    def remember(self, node: Node) -> None:
        """Count one reply that told the kernel of *node*."""

    def forget(self, ino: int, times: int) -> None:
        """Take back *times* counted replies."""


class ServedTree(Protocol):
    """What is served: a root with number 1, and the table of what the kernel knows."""

    @property
    def root(self) -> Node:
        """The mountpoint."""

    @property
    def inodes(self) -> Inodes:
        """The table that the root is in."""
