"""Inode numbers, and which nodes the kernel knows.

A node is owed to the kernel from its first counted reply until the kernel has forgotten as many: only that
long does the table hold it. Numbers follow from what a node stands for, so they are the same after a remount.
Must never import anything that knows FUSE. Called by all nodes (`intern`) and by the kernel edge (the rest).
"""

import logging
from collections.abc import Callable, Hashable
from hashlib import blake2b
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from layerfs.view.nodes import Node

log = logging.getLogger(__name__)

ROOT_INO: Final = 1
"""FUSE_ROOT_ID."""

_MASK: Final = (1 << 63) - 1
"""Signed programs read inode numbers too (facts/fuse-and-overlay.md section 8)."""

_FIRST: Final = 2
"""0 means "no entry" and 1 is the root."""

N = TypeVar("N", bound=Node)


def number_of(key: bytes) -> int:
    """Return the number that what is called *key* wants; of 63 bits, the same in every run."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") & _MASK


def offset_number(base: int, backing_ino: int) -> int:
    """Return the number of a file by the number that it has on disk; no two of one *base* are equal."""
    return (base + backing_ino) & _MASK


class InodeTable:
    """Nodes by number. Not thread-safe: it belongs to the thread of the kernel edge."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._counted: dict[int, Node] = {}
        self._alive: WeakValueDictionary[int, Node] = WeakValueDictionary()
        self._moved: dict[Hashable, int] = {}
        """Where things went whose number was taken; stays, so that they do not move again."""
        self._root: Node | None = None

    def set_root(self, root: Node) -> None:
        """Take the root, which the kernel knows without a lookup and never forgets."""
        assert root.ino == ROOT_INO
        self._root = root
        self._counted[ROOT_INO] = root

    def intern(self, number: int, identity: Hashable, make: Callable[[int], N]) -> N:
        """Return the one living node that stands for *identity*, made with its final number if there is none.

        *number* is the wanted one. *identity* must tell apart things of different classes, too.
        """
        place = self._moved.get(identity, number) if self._moved else number
        found = self._alive.get(place)
        if place < _FIRST or (found is not None and found.identity != identity):
            place, found = self._place(place, identity)
        if found is not None:
            return found  # type: ignore[return-value]  # one identity has one class
        node = make(place)
        node.identity = identity
        self._alive[place] = node
        return node

    def _place(self, number: int, identity: Hashable) -> tuple[int, Node | None]:
        """Return the next place that is free or has *identity*, with what is there."""
        found: Node | None = None
        while number < _FIRST or ((found := self._alive.get(number)) and found.identity != identity):
            number = (number + 1) & _MASK
        self._moved[identity] = number
        return number, found

    def get(self, ino: int) -> Node:
        """Return a node that the kernel knows. Raises KeyError for one that it should not."""
        return self._counted[ino]

    def remember(self, node: Node) -> None:
        """Count one reply that told the kernel of *node*."""
        ino = node.ino
        known = self._counts.get(ino, 0)
        self._counts[ino] = known + 1
        if not known:
            self._counted[ino] = node

    def forget(self, ino: int, times: int) -> None:
        """Take back *times* counted replies. Never raises: a wrong count is logged and clamped."""
        known = self._counts.get(ino, 0)
        if times > known:
            if ino == ROOT_INO:
                self._counts.pop(ino, None)
                return
            log.warning("inode %d: %d lookups forgotten (expected at most %d)", ino, times, known)
        if times < known:
            self._counts[ino] = known - times
            return
        self._counts.pop(ino, None)
        if ino == ROOT_INO:
            return
        node = self._counted.pop(ino, None)
        if node is not None:
            node.forgotten()

    def count(self, ino: int) -> int:
        """Return how many replies about *ino* the kernel has not taken back."""
        return self._counts.get(ino, 0)

    def __len__(self) -> int:
        """Return how many nodes are held for the kernel, the root included."""
        return len(self._counted)
