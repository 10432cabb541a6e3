"""Names that the kernel is asked to forget once many others came: it keeps each, and so must we.

For children of very large directories, and for names below ``images/`` that only the grammar allows: anybody
can make any number of both. The directory says which they are (`Node.is_passing`), when the child is met and
again before it is given up. A process that works in such a child meanwhile may find that getcwd(3) does not
know it any more, and whoever mounted something over it loses the mount.
"""

import time
from collections import deque
from typing import Final

import pyfuse3
from pyfuse3 import InodeT

from layerfs.view.nodes import Node

PASSING: Final = 8192
"""Names that are remembered; with their nodes about 8 MiB."""

PAUSE: Final = 2e-3
"""Seconds that whoever makes names waits while the kernel is behind with forgetting."""

_ASKED: Final = 2048
"""So many are being forgotten at any time."""
_PATIENCE: Final = 1.0
"""Seconds after which a name that is not forgotten is one that somebody uses."""


class PassingNames:
    """The last names of this kind, in the order in which the kernel was told of them."""

    def __init__(self, most: int = PASSING) -> None:
        self._most = most
        self._names: deque[tuple[Node, bytes, Node]] = deque()
        self.asked: deque[tuple[Node, float]] = deque()
        """Those that are being forgotten, since when."""

    @property
    def are_too_many(self) -> bool:
        """Whether the kernel is behind: it forgets in a thread, and whoever makes names may be faster."""
        asked, oldest = self.asked, time.monotonic() - _PATIENCE
        while asked and (not asked[0][0].lookups or asked[0][1] < oldest):
            asked.popleft()
        return len(asked) > _ASKED

    def met(self, directory: Node, name: bytes, node: Node) -> None:
        """Take note that the kernel was told of *node* as *name* in *directory*."""
        if node.lookups > 1 or not directory.is_passing(node):
            return
        self._names.append((directory, name, node))
        while len(self._names) > self._most:
            directory, name, node = self._names.popleft()
            if node.lookups and directory.is_passing(node):
                self.asked.append((node, time.monotonic()))
                # In a thread of pyfuse3: the kernel may want an answer of ours first.
                pyfuse3.invalidate_entry_async(InodeT(directory.ino), name, 0, ignore_enoent=True)
