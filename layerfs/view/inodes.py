"""Inode numbers, and which nodes the kernel knows.

A node is owed to the kernel from its first counted reply until the kernel has forgotten as many: only that
long does the table hold it. Numbers follow from what a node stands for, so they are the same after a
remount. Must never import anything that knows FUSE.
"""

import logging
from collections.abc import Callable, Hashable
from hashlib import blake2b
from typing import Final, TypeVar
from weakref import ref

from layerfs.view.nodes import Node

log = logging.getLogger(__name__)

ROOT_INO: Final = 1
"""FUSE_ROOT_ID."""

LAST_NUMBER: Final = (1 << 63) - 1
"""Signed programs read inode numbers too."""

_FIRST: Final = 2
"""0 means "no entry" and 1 is the root."""

N = TypeVar("N", bound=Node)


def number_of(key: bytes) -> int:
    """Return the number that what is called *key* wants; of 63 bits, the same in every run."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") & LAST_NUMBER


def offset_number(base: int, backing_ino: int) -> int:
    """Return the number of a file by the number that it has on disk; no two of one *base* are equal."""
    return (base + backing_ino) & LAST_NUMBER


class _Place(ref[Node]):
    """A node that holds a number as long as it lives."""

    __slots__ = ("number",)

    number: int


class InodeTable:
    """Nodes by number. Not thread-safe: it belongs to the thread of the kernel edge."""

    def __init__(self) -> None:
        self._counted: dict[int, Node] = {}
        self._places: dict[int, _Place] = {}
        """Every living node that was added. A WeakValueDictionary costs four times as much a node."""
        self._vacate = self._vacated
        self._moved: dict[Hashable, int] = {}
        """Where things went whose number was taken; stays, so that they do not move again."""

    def set_root(self, root: Node) -> None:
        """Take the root, which the kernel knows without a lookup and never forgets."""
        assert root.ino == ROOT_INO
        self._counted[ROOT_INO] = root

    def intern(self, number: int, identity: Hashable, make: Callable[[int], N]) -> N:
        """Return the one living node that stands for *identity*, made with its final number if there is none.

        *number* is the wanted one. *identity* must tell apart things of different classes, too.
        """
        found = self.find(number, identity)
        if type(found) is not int:
            return found  # type: ignore[return-value]  # one identity has one class
        return self.add(make(found), identity)

    def find(self, number: int, identity: Hashable) -> Node | int:
        """Return the one living node that stands for *identity*, else the number that a new one has to get.

        `intern` in two steps, for the nodes of which there are many.
        """
        if self._moved:
            number = self._moved.get(identity, number)
        place = self._places.get(number)
        if place is None:
            return number if number >= _FIRST else self._move(number, identity)
        node = place()
        if node is None:
            return number
        return node if node.identity == identity else self._move(number, identity)

    def add(self, node: N, identity: Hashable) -> N:
        """Take a new *node* with the number that `find` returned for *identity*; return it."""
        node.identity = identity
        place = self._places[node.ino] = _Place(node, self._vacate)
        place.number = node.ino
        return node

    def _vacated(self, place: _Place) -> None:
        """Give back the number of a node that is dead, unless another one has it already."""
        if self._places.get(place.number) is place:
            del self._places[place.number]

    def _move(self, number: int, identity: Hashable) -> Node | int:
        """Return the node of *identity* at the next place that is its own, or the next free number."""
        while True:
            number = (number + 1) & LAST_NUMBER
            if number < _FIRST:
                continue
            place = self._places.get(number)
            node = None if place is None else place()
            if node is None or node.identity == identity:
                self._moved[identity] = number
                return number if node is None else node

    def get(self, ino: int) -> Node:
        """Return a node that the kernel knows. Raises KeyError for one that it should not."""
        return self._counted[ino]

    def remember(self, node: Node) -> None:
        """Count one reply that told the kernel of *node*."""
        if not node.lookups:
            self._counted[node.ino] = node
        node.lookups += 1

    def forget(self, ino: int, times: int) -> None:
        """Take back *times* counted replies. Never raises: a wrong count is logged and clamped."""
        node = self._counted.get(ino)
        known = 0 if node is None else node.lookups
        if times > known and ino != ROOT_INO:
            log.warning("inode %d: %d lookups forgotten (expected at most %d)", ino, times, known)
        if node is None:
            return
        node.lookups = max(0, known - times)
        if not node.lookups and ino != ROOT_INO:
            del self._counted[ino]
            node.forgotten()

    def count(self, ino: int) -> int:
        """Return how many replies about *ino* the kernel has not taken back."""
        node = self._counted.get(ino)
        return 0 if node is None else node.lookups

    def __len__(self) -> int:
        """Return how many nodes are held for the kernel, the root included."""
        return len(self._counted)
