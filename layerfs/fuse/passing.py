"""Names that the kernel is asked to forget once many others came: it keeps each, and so must we.

Files of all images, the oldest first, unless they are open. Directories stay: somebody may work in one, or
have mounted something over it. But for passing names: children of very large directories, and names below
``images/`` that only the grammar allows, for anybody can make any number of both. The directory says which
they are (`Node.is_passing`), when the child is met and again before it is given up. A process that works in
such a directory meanwhile may find that getcwd(3) does not know it any more, and whoever mounted something
over it loses the mount.
"""

import time
from collections import deque
from collections.abc import Callable
from stat import S_ISDIR
from typing import Final

import pyfuse3
from pyfuse3 import EntryAttributes, InodeT

from layerfs.fuse.prepared import forget as forget_prepared
from layerfs.view.nodes import Node

PASSING: Final = 8192
"""Passing names that are remembered; with their nodes about 8 MiB."""

FILES: Final = 262_144
"""Files that are remembered, with their nodes some 210 MiB: real images have fewer."""

PAUSE: Final = 2e-3
"""Seconds that whoever makes names waits while the kernel is behind with forgetting."""

_ASKED: Final = 2048
"""So many are being forgotten at any time."""
_AT_ONCE: Final = 2
"""Names that are given up when one comes: one, and one of those that were open when it was their turn."""
_PATIENCE: Final = 1.0
"""Seconds after which a name that is not forgotten is one that somebody uses."""


class KnownNames:
    """The last names that the kernel was told of, in that order, but for directories.

    *is_open* says of which nodes a file is open: these are not given up, for their paths would be shown as
    deleted (proc(5), /proc/pid/exe).
    """

    def __init__(
        self, is_open: Callable[[Node], bool], *, passing: int = PASSING, files: int = FILES
    ) -> None:
        self._is_open = is_open
        self._passing = _Names(passing)
        self._files = _Names(files)
        self.asked: deque[tuple[Node, float]] = deque()
        """Those that are being forgotten, since when."""

    @property
    def are_too_many(self) -> bool:
        """Whether the kernel is behind: it forgets in a thread, and whoever makes names may be faster."""
        self._let_go()
        return len(self.asked) > _ASKED

    def _let_go(self) -> None:
        """Drop those that were forgotten, or that somebody uses."""
        asked, oldest = self.asked, time.monotonic() - _PATIENCE
        while asked and (not asked[0][0].lookups or asked[0][1] < oldest):
            asked.popleft()

    def met(self, directory: Node, name: bytes, node: Node, entry: EntryAttributes) -> None:
        """Take note that the kernel was told of *node* as *name* in *directory*, as *entry* describes it."""
        if node.lookups > 1:
            return
        if directory.is_passing(node):
            names = self._passing
            node.reply = None  # a third of what it costs, for a name that is hardly asked for again
        elif not S_ISDIR(entry.st_mode):
            names = self._files
        else:
            return
        names.queue.append((directory, name, node))
        for _ in range(min(_AT_ONCE, len(names.queue) - names.most)):
            self._give_up(names, *names.queue.popleft())

    def _give_up(self, names: "_Names", directory: Node, name: bytes, node: Node) -> None:
        if not node.lookups:
            return
        if names is self._files:
            if self._is_open(node):
                names.queue.append((directory, name, node))
                return
            directory.forgotten()  # its listing holds the nodes
            forget_prepared(directory)
        elif not directory.is_passing(node):
            return
        self._let_go()
        self.asked.append((node, time.monotonic()))
        # In a thread of pyfuse3: the kernel may want an answer of ours first.
        pyfuse3.invalidate_entry_async(InodeT(directory.ino), name, 0, ignore_enoent=True)


class _Names:
    """Names of one kind, the oldest first, and how many are remembered."""

    __slots__ = ("most", "queue")

    def __init__(self, most: int) -> None:
        self.most = most
        self.queue: deque[tuple[Node, bytes, Node]] = deque()
