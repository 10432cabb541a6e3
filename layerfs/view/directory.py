"""A directory of content that is on disk, never changed.

Its names are read once and kept while the kernel knows it; those of a large one while somebody reads them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from errno import ENOENT
from functools import partial
from itertools import islice
from typing import Final

from layerfs.layer.paths import shown
from layerfs.needs import Need
from layerfs.view.nodes import FOREVER, Attributes, LongEntries, Node
from layerfs.view.presence import Presence

LISTED_AT_ONCE: Final = 128
"""About what one reply of a listing takes; half a millisecond."""

MANY: Final = 32_768
"""Names up to which a listing is kept, with their nodes 32 MiB. /usr/share/man/man1 can have 18,000."""


class Listing:
    """The entries of a directory. Nodes are made when they are reached, some at a time, and then kept.

    So that a reply takes as long as the entries in it, however many the directory has: nobody else is served
    meanwhile. An entry that cannot be had any more is a `LostNode`.
    """

    __slots__ = ("_directory", "_names", "_nodes", "_numbers")

    def __init__(
        self, names: list[bytes], directory: "ContentDirectory", nodes: list[Node | None] | None = None
    ) -> None:
        self._names = names
        self._nodes: list[Node | None] = [None] * len(names) if nodes is None else nodes
        self._numbers: dict[bytes, int] | None = None
        self._directory = directory

    def find(self, name: bytes) -> Node | None:
        """Return the entry *name*, None if there is none. Raises OSError."""
        if self._numbers is None:
            self._numbers = {name: number for number, name in enumerate(self._names)}
        number = self._numbers.get(name)
        if number is None:
            return None
        node = self._nodes[number]
        if node is None or type(node) is LostNode:
            node = self._nodes[number] = self._directory.find(name)
        return node

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self._names)

    def __getitem__(self, part: slice) -> list[tuple[bytes, Node]]:
        """Return the entries from ``part.start`` to ``part.stop``."""
        start, stop, _ = part.indices(len(self._names))
        nodes: Sequence[Node | None] = self._nodes[start:stop]
        if None in nodes:
            nodes = self._fill(start, stop)
        return list(zip(self._names[start:stop], nodes, strict=True))  # type: ignore[arg-type]  # none is None

    def __iter__(self) -> Iterator[tuple[bytes, Node]]:
        for start in range(0, len(self), LISTED_AT_ONCE):
            yield from self[start : start + LISTED_AT_ONCE]

    def _fill(self, start: int, stop: int) -> list[Node]:
        """Make the nodes of a part."""
        found = list(self._directory.nodes_of(self._names[start:stop]))
        self._nodes[start:stop] = found
        return found


class LongListing(LongEntries):
    """The entries of a large directory, for one reader: read from the disk as he goes, and none is kept.

    Positions count entries. To go back is to begin anew: the disk has them in the same order each time. No
    call looks at more than `LISTED_AT_ONCE` names, of which the directory may hide any number.
    """

    __slots__ = ("_ahead", "_directory", "_names", "position")

    def __init__(self, directory: "ContentDirectory") -> None:
        self._directory = directory
        self.position = 0
        """Where the reader is."""
        self._names: Iterator[bytes | None] = iter(())
        self._ahead: list[tuple[bytes, Node]] = []
        self._rewind()

    def __iter__(self) -> Iterator[tuple[bytes, Node]]:
        reader = LongListing(self._directory)
        while (found := reader.next_entries()) is not None:
            yield from found
            reader.advance(len(found))

    def seek(self, position: int) -> bool:
        """Go some way towards *position*; say whether it is reached. Raises OSError."""
        if position < self.position:
            self._rewind()
        self.advance(min(position - self.position, len(self._ahead)))
        for _ in range(LISTED_AT_ONCE):
            if self.position >= position:
                return True
            try:
                self.position += next(self._names) is not None
            except StopIteration:
                return True
        return self.position >= position

    def next_entries(self) -> list[tuple[bytes, Node]] | None:
        """Return some entries or none, None at the end; the reader stays where he is. Raises OSError."""
        if not self._ahead:
            looked_at = list(islice(self._names, LISTED_AT_ONCE))
            if not looked_at:
                return None
            names = [name for name in looked_at if name is not None]
            self._ahead = list(zip(names, self._directory.nodes_of(names), strict=True))
        return self._ahead

    def advance(self, count: int) -> None:
        """Go *count* of the next entries forward."""
        self._ahead = self._ahead[count:]
        self.position += count

    def _rewind(self) -> None:
        self._names, self._ahead, self.position = self._directory.names(), [], 0


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


def _lost(name: bytes) -> LostNode:
    gone = f"{shown(name)}: the layer was removed while it was listed"
    return LostNode(FileNotFoundError(ENOENT, gone))


class ContentDirectory(Node, ABC):
    """A directory whose entries are fixed by digests; a subclass says what they are."""

    __slots__ = ("_attributes", "_listing", "_met", "_xattrs", "is_long")

    def __init__(self, ino: int, attributes: Attributes) -> None:
        super().__init__(ino)
        self._attributes = attributes
        self._listing: Listing | None = None
        self._xattrs: Mapping[bytes, bytes] | None = None
        self._met = 0
        self.is_long = False
        """Whether a listing found too much to keep."""

    @property
    def negative_timeout(self) -> float:
        """Without end: digests say what is not there."""
        return FOREVER

    def attributes(self) -> Attributes:
        """Return what the layer says."""
        return self._attributes

    @property
    def presence(self) -> Presence | None:
        """What has its layers back if they are removed."""
        return None

    def lookup(self, name: bytes) -> Node | Need | None:
        """Return an entry; waits for layers that were removed. Raises OSError."""
        presence = self.presence
        return self._entry_here(name) if presence is None else presence.trust(partial(self._entry_here, name))

    def _entry_here(self, name: bytes) -> Node | None:
        node = self.find(name) if self._listing is None else self._listing.find(name)
        if node is not None:
            self._met += 1
        return node

    def is_passing(self, child: Node) -> bool:
        """Say whether many children were met here."""
        return self.is_long or self._met > MANY

    def entries(self) -> "Listing | LongListing | Need":
        """List the names; each node is made when somebody gets to it. Waits as `lookup`. Raises OSError."""
        presence = self.presence
        return self.listing() if presence is None else presence.trust(self.listing)

    def listing(self) -> "Listing | LongListing":
        """List what is on the disk right now. Raises OSError."""
        if self._listing is None and not self.is_long:
            found = self.small_listing()
            if found is not None:
                self._listing = Listing([name for name, _ in found], self, [node for _, node in found])
            else:
                names = self.few_names()
                self.is_long = names is None
                self._listing = None if names is None else Listing(names, self)
        return LongListing(self) if self._listing is None else self._listing

    def xattrs(self) -> Mapping[bytes, bytes]:
        """Return the attributes. Raises OSError."""
        if self._xattrs is None:
            self._xattrs = self.read_xattrs()
        return self._xattrs

    def forgotten(self) -> None:
        """Drop what is on disk."""
        self._listing = None
        self._xattrs = None

    def small_listing(self) -> list[tuple[bytes, Node]] | None:
        """Return all entries if they can be had at once, and in no more time than a reply. Raises OSError."""
        return None

    def few_names(self) -> list[bytes] | None:
        """Return all names, None if more than `MANY` have to be looked at. Raises OSError."""
        found = list(islice(self.names(), MANY + 1))
        return None if len(found) > MANY else [name for name in found if name is not None]

    def nodes_of(self, names: Sequence[bytes]) -> Sequence[Node]:
        """Return the entries *names*, a `LostNode` for each that cannot be had any more."""
        try:
            return [
                _lost(name) if node is None else node
                for name, node in zip(names, self.find_all(names), strict=True)
            ]
        except OSError:
            return [self._find_or_lose(name) for name in names]

    def _find_or_lose(self, name: bytes) -> Node:
        try:
            node = self.find(name)
        except OSError as exc:
            return LostNode(exc)
        return _lost(name) if node is None else node

    def find_all(self, names: Sequence[bytes]) -> Sequence[Node | None]:
        """Return the entries *names* from the disk, each None if it is not there. Raises OSError."""
        return [self.find(name) for name in names]

    @abstractmethod
    def find(self, name: bytes) -> Node | None:
        """Return one entry from the disk. Raises OSError."""

    @abstractmethod
    def names(self) -> Iterator[bytes | None]:
        """Yield the names of all entries from the disk, in the same order each time. Raises OSError.

        None for each that was looked at and is no entry.
        """

    @abstractmethod
    def read_xattrs(self) -> Mapping[bytes, bytes]:
        """Return the attributes from the disk. Raises OSError."""
