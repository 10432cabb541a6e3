"""All layers of a stack as one tree, by the rules of `layerfs.layer.merge`.

The same as the kernel shows of the cover and the extracted layers. Decides nothing about the union itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import overload

from layerfs.layer.kinds import Kind, kind_of
from layerfs.layer.merge import LayerMarks, Merged, merge_entries, merge_entry, merge_root
from layerfs.layer.paths import join
from layerfs.layer.whiteout import is_marker
from layerfs.view.content import LayerTree
from layerfs.view.directory import MANY, ContentDirectory
from layerfs.view.inodes import InodeTable, number_of
from layerfs.view.nodes import FileStatus, Node
from layerfs.view.presence import Presence
from layerfs.view.source import LayerSource


class _Marks(Sequence[LayerMarks]):
    """What the markers of a stack hide, asked of each layer when it matters: nobody may keep them."""

    def __init__(self, trees: Sequence[LayerTree]) -> None:
        self._trees = trees

    @overload
    def __getitem__(self, number: int) -> LayerMarks: ...
    @overload
    def __getitem__(self, number: slice) -> list[LayerMarks]: ...
    def __getitem__(self, number: int | slice) -> LayerMarks | list[LayerMarks]:
        found = self._trees[number]
        return found.marks if isinstance(found, LayerTree) else [tree.marks for tree in found]

    def __len__(self) -> int:
        return len(self._trees)


class Stack:
    """The trees of a stack and what their markers hide, base first; shared by all directories of one."""

    def __init__(
        self,
        key: bytes,
        trees: Sequence[LayerTree],
        inodes: InodeTable,
        presence: Presence | None = None,
    ) -> None:
        self.key = key
        self.presence = presence
        """What has the layers back if they are removed."""
        self.trees = trees
        self.inodes = inodes
        self.marks = _Marks(trees)

    def root(self, ino: int) -> "MergedDirectory | None":
        """Return the root of the union; it answers for the node *ino*. Raises OSError."""
        merged = merge_root(self.marks)
        status = self.trees[merged.attributes].source.lstat(b"")
        return None if status is None else MergedDirectory(ino, self, b"", merged, status)


class MergedDirectory(ContentDirectory):
    """A directory of the union."""

    __slots__ = ("_merged", "_path", "_stack", "_visible")

    def __init__(self, ino: int, stack: Stack, path: bytes, merged: Merged, status: FileStatus) -> None:
        attributes = stack.trees[merged.attributes].attributes(path, status)
        if len(merged.layers) > 1:
            # As overlayfs: nobody has counted the subdirectories, and find(1) takes 1 as "unknown".
            attributes.nlink = 1
        super().__init__(ino, attributes)
        self._stack = stack
        self._path = path
        self._merged = merged
        self._visible: dict[bytes, Merged] | None = None
        """What a listing found."""

    @property
    def presence(self) -> Presence | None:
        """That of all layers."""
        return self._stack.presence

    def find(self, name: bytes) -> Node | None:
        """Return what is visible under *name*. Raises OSError."""
        path = join(self._path, name)
        if self._visible is not None and name in self._visible:
            return self._find_visible(self._visible[name], name, path)
        found: dict[int, FileStatus] = {}

        def kind(number: int) -> Kind | None:
            status = self._stack.trees[number].source.lstat(path)
            if status is None:
                return None
            found[number] = status
            return kind_of(status.st_mode, status.st_rdev)

        merged = merge_entry(path, self._merged, self._stack.marks, kind)
        return None if merged is None else self._entry(name, merged, found[merged.attributes])

    def find_all(self, names: Sequence[bytes]) -> Sequence[Node | None]:
        """Return what is visible under *names*, some that `names` returned. Raises OSError."""
        visible = self._visible
        if visible is None:
            return super().find_all(names)
        by_layer: dict[int, list[bytes]] = {}
        for name in names:
            by_layer.setdefault(visible[name].attributes, []).append(name)
        statuses: dict[bytes, FileStatus | None] = {}
        for number, some in by_layer.items():
            statuses |= zip(some, self._stack.trees[number].source.statuses(self._path, some), strict=True)
        return [
            None if (status := statuses[name]) is None else self._entry(name, visible[name], status)
            for name in names
        ]

    def few_names(self) -> list[bytes] | None:
        """Return the names of all that is visible, merged at once; None if the layers list too much."""
        self._visible = self._merged_at_once()
        return None if self._visible is None else list(self._visible)

    def _merged_at_once(self) -> dict[bytes, Merged] | None:
        trees, left = self._stack.trees, MANY
        found: dict[int, list[tuple[bytes, Kind | None]]] = {}
        for number in self._merged.layers:
            found[number] = list(islice(trees[number].source.kinds(self._path), left + 1))
            left -= len(found[number])
            if left < 0:
                return None
        return merge_entries(self._path, self._merged, self._stack.marks, found.__getitem__)

    def names(self) -> Iterator[bytes | None]:
        """Yield what is visible, None for each name that is not. Raises OSError.

        A name is judged alone, by the topmost layer that has it, so that nobody has to remember any.
        """
        sources = [self._stack.trees[number].source for number in self._merged.layers]
        for place, source in enumerate(sources):
            for name, kind in source.kinds(self._path):
                yield name if kind is not None and self._decides(name, sources[:place]) else None

    def _decides(self, name: bytes, above: Sequence[LayerSource]) -> bool:
        """Say whether *name* is visible: whether no layer of those *above* has it, and none hides it."""
        if is_marker(name):
            return False
        path = join(self._path, name)
        try:
            return not any(_has(source, path) for source in above) and self.find(name) is not None
        except OSError:
            return True  # whoever asks for this entry is told why, and the others are listed

    def forgotten(self) -> None:
        """Drop what is on disk."""
        super().forgotten()
        self._visible = None

    def read_xattrs(self) -> Mapping[bytes, bytes]:
        """Return the xattrs of the layer that decides the attributes. Raises OSError."""
        return self._stack.trees[self._merged.attributes].xattrs(self._path)

    def _find_visible(self, merged: Merged, name: bytes, path: bytes) -> Node | None:
        """Return what `names` found, without asking all layers again. Raises OSError."""
        status = self._stack.trees[merged.attributes].source.lstat(path)
        return None if status is None else self._entry(name, merged, status)

    def _entry(self, name: bytes, merged: Merged, status: FileStatus) -> Node:
        stack = self._stack
        if not merged.is_directory:
            return stack.trees[merged.attributes].file(self._path, name, status)
        path = join(self._path, name)
        key = stack.key + b"/" + path
        return stack.inodes.intern(
            number_of(key), key, lambda ino: MergedDirectory(ino, stack, path, merged, status)
        )


def _has(source: LayerSource, path: bytes) -> bool:
    status = source.lstat(path)
    return status is not None and kind_of(status.st_mode, status.st_rdev) is not None
