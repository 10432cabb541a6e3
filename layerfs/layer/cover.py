"""The cover: a small directory that makes overlayfs show what the image specification says of a stack.

Decides which directories and whiteouts it holds, from the records of the layers, so that nothing is walked.
Must never import a package that does I/O; the one fact that records do not hold, what a layer has at a path,
is asked through a callable. Called by `store`, which writes the plan (design.md section 4).

Two things are wrong when overlayfs merges layer directories as they are: marker files show, and a directory
that a layer only implies hides the attributes of lower layers. So the cover, on top of all layers, holds

- a whiteout over each marker that would be visible. Such a marker stands in a visible directory, so the
  cover's directory merges with it and brings nothing back; and merging makes overlayfs hide the 0:0 devices
  there, which it lists in a directory that only one layer has (facts/fuse-and-overlay.md section 4);
- each directory whose topmost layer implies it, if a layer below has attributes to inherit;
- the directories on the way to them, the root first.

overlayfs takes the attributes of a merged directory from its topmost layer. That is the cover now, so each of
its directories takes the attributes that the union has there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from layerfs.layer.merge import Kind, LayerMarks, Merged, marks_of, merge_entry, merge_root, split
from layerfs.layer.record import Extraction

LayerKind = Callable[[int, bytes], Kind | None]
"""What layer *number*, counted from the base, has at a path; `layerfs.layer.merge.kind_of` of its lstat."""


@dataclass(frozen=True, slots=True)
class CoverDirectory:
    """One directory of a cover."""

    path: bytes
    """Relative; the root is empty."""
    layer: int
    """Number of the layer with the mode, owner, mtime and xattrs to copy, all but overlay's own xattrs."""


@dataclass(frozen=True, slots=True)
class Cover:
    """What a cover holds. Empty but for the root if the stack is right without it."""

    directories: tuple[CoverDirectory, ...]
    """Parents first, the root at the front; nothing at all for a stack without layers."""
    whiteouts: tuple[bytes, ...]
    """Paths of 0:0 devices to make, each in one of *directories*; sorted."""


def plan_cover(layers: Sequence[Extraction], kind: LayerKind) -> Cover:
    """Return the cover of a stack, given the records of its layers, base first.

    A layer may occur more than once; the stack that the kernel mounts needs its topmost occurrence only.
    Asks *kind* only about directories that hold markers or are implied, and about those on the way.
    Raises InvalidWhiteout for a record with a bad marker name.
    """
    if not layers:
        return Cover((), ())
    union = _Union([marks_of(layer) for layer in layers], kind)
    whiteouts = sorted(set(union.visible_markers()))
    wanted = {split(path)[0] for path in whiteouts}
    wanted.update(union.inheriting_directories())
    wanted.update(ancestor for path in tuple(wanted) for ancestor in _ancestors(path))
    wanted.add(b"")
    directories = [
        CoverDirectory(path, merged.attributes)
        for path in sorted(wanted, key=lambda path: path.split(b"/"))
        if (merged := union.directory(path)) is not None
    ]
    return Cover(tuple(directories), tuple(whiteouts))


class _Union:
    """The merged directories of one stack, computed as far as they are asked for."""

    def __init__(self, marks: Sequence[LayerMarks], kind: LayerKind) -> None:
        self._marks = marks
        self._kind = kind
        self._known = [_directories_of(mark) for mark in marks]
        self._directories: dict[bytes, Merged | None] = {b"": merge_root(marks)}

    def directory(self, path: bytes) -> Merged | None:
        """Return the visible directory at *path*; None if there is none."""
        missing = []
        while path not in self._directories:
            missing.append(path)
            path = split(path)[0]
        merged = self._directories[path]
        for path in reversed(missing):
            merged = self._child(path, merged)
            self._directories[path] = merged
        return merged

    def visible_markers(self) -> Iterator[bytes]:
        """Yield the path of each marker that shows in the plain union, more than once if layers repeat it."""
        for number, mark in enumerate(self._marks):
            for path in mark.markers:
                merged = self.directory(split(path)[0])
                if merged is not None and number in merged.layers:
                    yield path

    def inheriting_directories(self) -> Iterator[bytes]:
        """Yield each directory whose attributes are not those of its topmost layer."""
        for path in frozenset().union(*(mark.implied for mark in self._marks)):
            merged = self.directory(path)
            if merged is not None and merged.attributes != merged.layers[0]:
                yield path

    def _child(self, path: bytes, parent: Merged | None) -> Merged | None:
        if parent is None:
            return None
        merged = merge_entry(path, parent, self._marks, lambda number: self._kind_at(number, path))
        return merged if merged is not None and merged.is_directory else None

    def _kind_at(self, number: int, path: bytes) -> Kind | None:
        return Kind.DIRECTORY if path in self._known[number] else self._kind(number, path)


def _directories_of(mark: LayerMarks) -> frozenset[bytes]:
    """Return the paths that one layer's markers prove to be directories of it."""
    proven = {split(path)[0] for path in mark.markers} | mark.implied
    return frozenset(proven.union(*map(_ancestors, proven)))


def _ancestors(path: bytes) -> Iterable[bytes]:
    while path:
        path = split(path)[0]
        yield path
