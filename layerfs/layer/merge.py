"""The rules of the union: what is visible when layers lie on top of each other, with whose attributes.

Decides from kinds and markers alone, before and without I/O. The cover of the native stack and the
``rootfs/`` of the mount are both made by these rules, so they show the same.

How a caller works, all layers of a stack numbered from the base, 0:

- once a stack: ``marks = [marks_of(layer.tables()) for ...]``, base first, and ``merge_root(marks)``;
- a lookup: ``merge_entry(path, parent, marks, kind)``, where *path* is the child's (relative, bytes),
  *parent* the `Merged` of its directory and ``kind(number)`` says what layer *number* itself has there. It
  is asked lazily, topmost first, so that the caller makes no call to the disk that decides nothing;
- a listing: ``merge_entries(path, parent, marks, listing)``, where *path* is the directory's and
  ``listing(number)`` gives the names and kinds that layer *number* has in it, asked once a layer.

What a layer "has" is what stands in ``extracted/<digest>/``, read with `layerfs.layer.kinds.kind_of`: a 0:0
device is the overlay form of a marker and counts as nothing. Markers are never entries of the union: both
functions leave them out.

The rules (image-spec layer.md, "Whiteouts" and "Applying Changesets"):

1. The topmost layer that has a name decides its kind. Directories below merge into it until a layer has
   another kind there, or hides the name, or is opaque. A file replaces whatever lies below, and a directory
   replaces a file.
2. A marker acts on lower layers only, so what its own layer has under the name it hides stays visible.
3. Attributes of a directory are those of the topmost layer that lists it. A layer that only implies it (has
   entries below it, but none for it) leaves the attributes of lower layers as they were, also when it empties
   the directory with an opaque marker; after a whiteout of it, a file in its place or an opaque directory
   above it there is nothing left to inherit.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set

import msgspec

from layerfs.layer.kinds import Kind
from layerfs.layer.paths import join, split
from layerfs.layer.tables import FEW, PathSet, Tables, paths_in
from layerfs.layer.whiteout import OPAQUE_MARKER, WH_PREFIX, Whiteout, is_marker, parse_marker


class LayerMarks(msgspec.Struct, frozen=True):
    """The markers of one layer, by path; paths are relative, the root is empty."""

    hidden: Set[bytes]
    """What this layer's whiteouts hide in lower layers."""
    opaque: Set[bytes]
    """Directories that hide all that lower layers have in them."""
    implied: Set[bytes]
    """Directories that the layer has without listing them."""
    markers: Collection[bytes]
    """The marker entries themselves, of every sort."""


class Merged(msgspec.Struct, frozen=True):
    """One visible entry of the union."""

    kind: Kind
    layers: tuple[int, ...]
    """Numbers of the layers whose content shows, topmost first; exactly one for what is no directory."""
    attributes: int
    """Number of the layer whose attributes show."""

    @property
    def is_directory(self) -> bool:
        """Whether the entry can have entries below it."""
        return self.kind is Kind.DIRECTORY


def marks_of(tables: Tables, few: int = FEW) -> LayerMarks:
    """Return the markers of a layer from its tables. May raise InvalidWhiteout for a bad name in them.

    Tables of at most *few* bytes become sets; larger ones stay what they are, and are looked up in.
    """
    whiteouts, opaque = paths_in(tables.whiteouts, few), paths_in(tables.opaques, few)
    return LayerMarks(
        hidden=_Hidden(whiteouts) if isinstance(whiteouts, PathSet) else frozenset(hidden_by(whiteouts)),
        opaque=opaque,
        implied=paths_in(tables.implied, few),
        markers=_Markers(whiteouts, opaque),
    )


class _Hidden(Set[bytes]):
    """What many whiteouts hide: a name is hidden if its marker is there."""

    __slots__ = ("_whiteouts",)

    def __init__(self, whiteouts: Set[bytes]) -> None:
        self._whiteouts = whiteouts

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, bytes):
            return False
        directory, name = split(path)
        return not is_marker(name) and join(directory, WH_PREFIX + name) in self._whiteouts

    def __iter__(self) -> Iterator[bytes]:
        return hidden_by(self._whiteouts)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Markers(Collection[bytes]):
    """The paths of all markers of a layer."""

    __slots__ = ("_opaque", "_whiteouts")

    def __init__(self, whiteouts: Set[bytes], opaque: Set[bytes]) -> None:
        self._whiteouts = whiteouts
        self._opaque = opaque

    def __contains__(self, path: object) -> bool:
        return path in self._whiteouts or any(path == marker for marker in self._of_opaques())

    def __iter__(self) -> Iterator[bytes]:
        yield from self._whiteouts
        yield from self._of_opaques()

    def __len__(self) -> int:
        return len(self._whiteouts) + len(self._opaque)

    def _of_opaques(self) -> Iterator[bytes]:
        return (join(directory, OPAQUE_MARKER) for directory in self._opaque)


def hidden_by(markers: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what the whiteouts among *markers*, paths all, hide. Raises InvalidWhiteout for a bad name."""
    for path in markers:
        directory, name = split(path)
        marker = parse_marker(name)
        if isinstance(marker, Whiteout):
            yield join(directory, marker.hidden)


def merge_root(marks: Sequence[LayerMarks]) -> Merged:
    """Return the root of a stack of at least one layer, base first."""
    root = _merge(b"", reversed(range(len(marks))), marks, lambda _: Kind.DIRECTORY)
    if root is None:
        raise ValueError("a stack without layers has no root")
    return root


def merge_entry(
    path: bytes, parent: Merged, marks: Sequence[LayerMarks], kind: Callable[[int], Kind | None]
) -> Merged | None:
    """Return what is visible at *path*, a child of the directory *parent*; None if nothing is.

    *kind* says what a layer has at *path*, given its number.
    """
    if is_marker(split(path)[1]):
        return None
    return _merge(path, parent.layers, marks, kind)


def merge_entries(
    path: bytes,
    parent: Merged,
    marks: Sequence[LayerMarks],
    listing: Callable[[int], Iterable[tuple[bytes, Kind | None]]],
) -> dict[bytes, Merged]:
    """Return all that is visible in the directory *path*, by name, in the order in which layers list it.

    *listing* gives what a layer has in *path*, given its number: names and kinds, in any order.
    """
    found: dict[bytes, dict[int, Kind | None]] = {}
    for number in parent.layers:
        for name, kind in listing(number):
            if not is_marker(name):
                found.setdefault(name, {})[number] = kind
    merged = {}
    for name, kinds in found.items():
        entry = _merge(join(path, name), parent.layers, marks, kinds.get)
        if entry is not None:
            merged[name] = entry
    return merged


def _merge(
    path: bytes, layers: Iterable[int], marks: Sequence[LayerMarks], kind: Callable[[int], Kind | None]
) -> Merged | None:
    """Apply the rules to *layers*, topmost first; stops asking once nothing below matters."""
    contents: list[int] = []
    attributes: int | None = None
    emptied = False
    for number in layers:
        mark, found = marks[number], kind(number)
        if found is Kind.OTHER:
            if not contents:
                return Merged(Kind.OTHER, (number,), number)
            break
        if found is Kind.DIRECTORY:
            if not emptied:
                contents.append(number)
            if attributes is None and path not in mark.implied:
                attributes = number
            emptied = emptied or path in mark.opaque
        if path in mark.hidden or (emptied and attributes is not None):
            break
    if not contents:
        return None
    return Merged(Kind.DIRECTORY, tuple(contents), contents[0] if attributes is None else attributes)
