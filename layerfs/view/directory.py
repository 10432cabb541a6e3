"""A directory of content that is on disk: read once, kept while the kernel knows it, complete for ever.

Called by the forms in which layers are shown: `diff`, `lower`, `rootfs`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from layerfs.view.nodes import FOREVER, Attributes, Node


class ContentDirectory(Node, ABC):
    """A directory whose entries are fixed by digests; a subclass says what they are."""

    __slots__ = ("_attributes", "_listing", "_xattrs")

    def __init__(self, ino: int, attributes: Attributes) -> None:
        super().__init__(ino)
        self._attributes = attributes
        self._listing: dict[bytes, Node] | None = None
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
        return self.find(name) if self._listing is None else self._listing.get(name)

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

    @abstractmethod
    def find(self, name: bytes) -> Node | None:
        """Return one entry from the disk. Raises OSError."""

    @abstractmethod
    def read(self) -> dict[bytes, Node]:
        """Return all entries from the disk, by name. Raises OSError."""

    @abstractmethod
    def read_xattrs(self) -> Mapping[bytes, bytes]:
        """Return the attributes from the disk. Raises OSError."""
