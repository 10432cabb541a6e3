"""The cover: a small directory that makes overlayfs show what the image specification says of a stack.

Decides which directories and whiteouts it holds, from the records of the layers, so that nothing is walked.
Must never import a package that does I/O; what records do not hold, what a layer has at a path, is asked
through callables.

Three things are wrong when overlayfs merges layer directories as they are: marker files show, a directory
that a layer only implies hides the attributes of lower layers, and an opaque attribute on the root of a layer
is ignored (tried on Linux 6.18). So the cover, on top of all layers, holds

- a whiteout over each marker that would be visible. Such a marker stands in a visible directory, so the
  cover's directory merges with it and brings nothing back; and merging makes overlayfs hide the 0:0 devices
  there, which it lists in a directory that only one layer has;
- each directory whose topmost layer implies it, if a layer below has attributes to inherit;
- a whiteout over each name that shows only because of an ignored opaque root. Such layers are rare, and the
  only ones for which directories are listed: those that the layers above and below have in common;
- the directories on the way to them, the root first.

fuse-overlayfs reads names (tried with 1.10): a marker is to it what it is to the image specification, at the
root too, and a whiteout over a marker is that marker. But a marker hides what its own layer has under that
name. So its cover has no whiteouts; it holds the directories that inherit, and copies of what is lost so.

overlayfs takes the attributes of a merged directory from its topmost layer. That is the cover now, so each of
its directories takes the attributes that the union has there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from layerfs.layer.kinds import Kind
from layerfs.layer.merge import LayerMarks, Merged, marks_of, merge_entry, merge_root
from layerfs.layer.overlayfs import with_ancestors
from layerfs.layer.paths import join, split
from layerfs.layer.tables import Tables

LayerKind = Callable[[int, bytes], Kind | None]
"""What layer *number*, counted from the base, has at a path; `layerfs.layer.kinds.kind_of` of its lstat."""

LayerNames = Callable[[int, bytes], Iterable[bytes]]
"""All names in a directory of layer *number*, as os.listdir gives them."""


class CoverDirectory(msgspec.Struct, frozen=True):
    """One directory of a cover."""

    path: bytes
    """Relative; the root is empty."""
    layer: int
    """Number of the layer with the mode, owner, mtime and xattrs to copy, all but overlay's own xattrs."""


class Cover(msgspec.Struct, frozen=True):
    """What a cover holds. Empty but for the root if the stack is right without it."""

    directories: tuple[CoverDirectory, ...]
    """Parents first, the root at the front; nothing at all for a stack without layers."""
    whiteouts: tuple[bytes, ...]
    """Paths of 0:0 devices to make, each in one of *directories*; sorted."""
    copies: tuple[tuple[bytes, int], ...] = ()
    """Paths of entries that are no directories, with the number of the layer to copy them from; sorted."""


def plan_cover(layers: Sequence[Tables], kind: LayerKind, names: LayerNames) -> Cover:
    """Return the cover of a stack, given the tables of its layers, base first.

    A layer may occur more than once; the stack that the kernel mounts needs its topmost occurrence only.
    Asks *kind* about directories that hold markers or are implied, and about those on the way; about others,
    and *names*, only if a layer's root is opaque. Raises InvalidWhiteout for a record with a bad marker name.
    """
    if not layers:
        return Cover((), ())
    marks = [marks_of(layer) for layer in layers]
    union = _Union(marks, kind)
    whiteouts = set(union.visible_markers())
    if any(b"" in mark.opaque for mark in marks[1:]):
        whiteouts.update(
            _left_over(union, _Union([_without_opaque_root(mark) for mark in marks], kind), names)
        )
    wanted = {split(path)[0] for path in whiteouts}
    return Cover(_directories(union, wanted), tuple(sorted(whiteouts)))


def plan_fuse_cover(layers: Sequence[Tables], kind: LayerKind, names: LayerNames) -> Cover:
    """Return the cover that fuse-overlayfs needs, of what `plan_cover` takes.

    A layer that has a name beside the marker that hides it is the only sort whose directories are listed.
    """
    if not layers:
        return Cover((), ())
    marks = [marks_of(layer) for layer in layers]
    union = _Union(marks, kind)
    lost = dict(_hidden_by_own_marker(union, marks, kind, names))
    copies = {path: number for path, number in lost.items() if number is not None}
    wanted = {split(path)[0] for path in copies} | {path for path, number in lost.items() if number is None}
    return Cover(_directories(union, wanted), (), tuple(sorted(copies.items())))


def _directories(union: "_Union", wanted: Iterable[bytes]) -> tuple[CoverDirectory, ...]:
    """Return *wanted* with the directories whose attributes are inherited, and all on the way to them."""
    found = {b"", *wanted, *union.inheriting_directories()}
    found.update(ancestor for path in tuple(found) for ancestor in with_ancestors(path))
    return tuple(
        CoverDirectory(path, merged.attributes)
        for path in sorted(found, key=lambda path: path.split(b"/"))
        if (merged := union.directory(path)) is not None
    )


def _hidden_by_own_marker(
    union: "_Union", marks: Sequence[LayerMarks], kind: LayerKind, names: LayerNames
) -> Iterator[tuple[bytes, int | None]]:
    """Yield each visible entry that a marker of its own layer stands for, and what is visible below it.

    With the number of the layer that it is to be copied from; None for a directory.
    """
    for number, mark in enumerate(marks):
        pending = [path for path in mark.hidden if kind(number, path) is not None]
        while pending:
            path = pending.pop()
            merged = union.entry(path)
            if merged is None or number not in merged.layers:
                continue
            if merged.is_directory:
                yield path, None
                pending += [join(path, name) for name in names(number, path)]
            else:
                yield path, number


def _left_over(union: "_Union", plain: "_Union", names: LayerNames) -> Iterator[bytes]:
    """Yield what shows in *plain*, which ignores opaque roots, and has no place in *union*.

    Also yields a few names that *plain* hides, too: in a merged directory a needless whiteout does no harm.
    """
    common = [b""]
    while common:
        directory = common.pop()
        wanted, shown = union.directory(directory), plain.directory(directory)
        assert wanted is not None  # the root, or looked at below
        assert shown is not None  # what is visible with opaque roots is so without them
        intruders = [number for number in shown.layers if number not in wanted.layers]
        for path in {join(directory, name) for number in intruders for name in names(number, directory)}:
            entry = union.entry(path)
            if entry is None:
                yield path
            elif entry.is_directory:
                common.append(path)


def _without_opaque_root(mark: LayerMarks) -> LayerMarks:
    """Return what overlayfs sees of an opaque root: neither that nor the whiteouts that it makes needless."""
    if b"" not in mark.opaque:
        return mark
    return msgspec.structs.replace(mark, opaque=frozenset(mark.opaque) - {b""}, hidden=frozenset())


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
        found = self._directories[path]
        for path in reversed(missing):
            entry = self.entry(path)
            found = self._directories[path] = entry if entry is not None and entry.is_directory else None
        return found

    def entry(self, path: bytes) -> Merged | None:
        """Return what is visible at *path*, which is not the root; None if nothing is."""
        parent = self.directory(split(path)[0])
        if parent is None:
            return None
        return merge_entry(path, parent, self._marks, lambda number: self._kind_at(number, path))

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

    def _kind_at(self, number: int, path: bytes) -> Kind | None:
        return Kind.DIRECTORY if path in self._known[number] else self._kind(number, path)


def _directories_of(mark: LayerMarks) -> frozenset[bytes]:
    """Return the paths that one layer's markers prove to be directories of it."""
    proven = {split(path)[0] for path in mark.markers}.union(mark.implied)
    return frozenset(proven.union(*map(with_ancestors, proven)))
