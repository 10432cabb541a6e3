"""A directory of content that is on disk: names read once, kept while the kernel knows it, complete for ever.

Called by the forms in which layers are shown: `diff`, `lower`, `rootfs`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from errno import ENOENT
from typing import overload

from layerfs.layer.names import to_text
from layerfs.view.nodes import FOREVER, Attributes, Node


class Listing(Sequence[tuple[bytes, Node]]):
    """The entries of a directory. A node is made when it is reached, and then kept.

    So that a reply takes as long as the entries in it, however many the directory has: nobody else is served
    meanwhile.
    """

    __slots__ = ("_find", "_names", "_nodes")

    def __init__(self, names: list[bytes], find: Callable[[bytes], Node | None]) -> None:
        self._names = names
        self._nodes: dict[bytes, Node | None] = dict.fromkeys(names)
        self._find = find

    def find(self, name: bytes) -> Node | None:
        """Return the entry *name*, None if there is none. Raises OSError."""
        if name not in self._nodes:
            return None
        node = self._nodes[name]
        if node is None:
            node = self._nodes[name] = self._find(name)
        return node

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> tuple[bytes, Node]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[bytes, Node]]: ...
    def __getitem__(self, index: int | slice) -> tuple[bytes, Node] | Sequence[tuple[bytes, Node]]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        name = self._names[index]
        try:
            node = self.find(name)
        except OSError as exc:
            return name, LostNode(exc)
        if node is None:
            gone = f"{to_text(name)}: the layer was removed while it was listed"
            return name, LostNode(FileNotFoundError(ENOENT, gone))
        return name, node


class LostNode(Node):
    """An entry that was listed and cannot be had any more: asking for its attributes says why.

    So that half of a reply can be given before the error, which the edge sees where it expects errors.
    """

    __slots__ = ("_error",)

    def __init__(self, error: OSError) -> None:
        super().__init__(0)
        self._error = error

    def attributes(self) -> Attributes:
        """Raise the error."""
        raise self._error


class ContentDirectory(Node, ABC):
    """A directory whose entries are fixed by digests; a subclass says what they are."""

    __slots__ = ("_attributes", "_listing", "_xattrs")

    def __init__(self, ino: int, attributes: Attributes) -> None:
        super().__init__(ino)
        self._attributes = attributes
        self._listing: Listing | None = None
        self._xattrs: Mapping[bytes, bytes] | None = None

    @property
    def negative_timeout(self) -> float:
        """Without end: digests say what is not there."""
        return FOREVER

    def attributes(self) -> Attributes:
        """Return what the layer says."""
        return self._attributes

    def lookup(self, name: bytes) -> Node | None:
        """Return an entry. Raises OSError."""
        return self.find(name) if self._listing is None else self._listing.find(name)

    def entries(self) -> "Listing":
        """List the names; each node is made when somebody gets to it. Raises OSError."""
        if self._listing is None:
            self._listing = Listing(self.names(), self.find)
        return self._listing

    def xattrs(self) -> Mapping[bytes, bytes]:
        """Return the attributes. Raises OSError."""
        if self._xattrs is None:
            self._xattrs = self.read_xattrs()
        return self._xattrs

    def forgotten(self) -> None:
        """Drop what is on disk."""
        self._listing = None
        self._xattrs = None

    @abstractmethod
    def find(self, name: bytes) -> Node | None:
        """Return one entry from the disk. Raises OSError."""

    @abstractmethod
    def names(self) -> list[bytes]:
        """Return the names of all entries from the disk. Raises OSError."""

    @abstractmethod
    def read_xattrs(self) -> Mapping[bytes, bytes]:
        """Return the attributes from the disk. Raises OSError."""
