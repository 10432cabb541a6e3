"""What each layer of a stack changes in the layers below it: entries added, changed and removed, with sizes.

Decides from paths, kinds and markers alone; does no I/O. Follows the rules of `layer.merge`, but keeps the
whole union in memory and applies layer after layer, base first.
"""

from collections.abc import Iterable, Iterator
from typing import Final, Literal

import msgspec

from layerfs.layer.merge import LayerMarks
from layerfs.layer.paths import join, split

Change = Literal["added", "changed", "removed"]
EntryKind = Literal["file", "directory", "link", "device", "pipe", "socket"]

_DIRECTORY: Final[EntryKind] = "directory"


class LayerEntry(msgspec.Struct, frozen=True):
    """What one layer has at a path, markers left out."""

    path: bytes
    """Relative; not the root."""
    kind: EntryKind
    size: int
    """Bytes of content; 0 for the second name of a file."""


class Changed(msgspec.Struct, frozen=True):
    """One difference that a layer makes."""

    path: bytes
    change: Change
    kind: EntryKind
    size: int
    """Bytes that the layer brings, or for what it removes, that are not visible any more."""
    replaced: int = 0
    """Bytes of a lower layer that it hides."""


class _Node(msgspec.Struct):
    kind: EntryKind
    size: int
    children: dict[bytes, "_Node"] = msgspec.field(default_factory=dict)


class Union:
    """The union of the layers that were applied so far."""

    def __init__(self) -> None:
        self._root = _Node(_DIRECTORY, 0)

    def apply(self, entries: Iterable[LayerEntry], marks: LayerMarks) -> list[Changed]:
        """Put a layer on top, its directories before what is in them; return what it changes.

        A directory that is there already is no change: archives list parents for the sake of their children.
        """
        gone = dict(self._hide(marks))
        changes = []
        for entry in entries:
            before = gone.pop(entry.path, None)
            for path, node in self._put(entry):
                if path == entry.path:
                    before = node
                else:
                    gone[path] = node
            if before is None:
                changes.append(Changed(entry.path, "added", entry.kind, entry.size))
            elif before.kind != _DIRECTORY or entry.kind != _DIRECTORY:
                changes.append(Changed(entry.path, "changed", entry.kind, entry.size, before.size))
        changes += [Changed(path, "removed", node.kind, node.size, node.size) for path, node in gone.items()]
        return changes

    def _hide(self, marks: LayerMarks) -> Iterator[tuple[bytes, _Node]]:
        """Take away what the markers hide in lower layers."""
        for path in marks.hidden:
            directory, name = split(path)
            parent = self._find(directory)
            if parent is not None and name in parent.children:
                yield from _flat(path, parent.children.pop(name))
        for path in marks.opaque:
            directory_node = self._find(path)
            if directory_node is not None:
                for name, node in directory_node.children.items():
                    yield from _flat(join(path, name), node)
                directory_node.children = {}

    def _put(self, entry: LayerEntry) -> Iterator[tuple[bytes, _Node]]:
        """Make *entry* visible; yield what it replaces."""
        directory, name = split(entry.path)
        parent = self._find(directory)
        if parent is None:
            raise ValueError(f"{entry.path!r} comes before its directory")
        old = parent.children.get(name)
        if old is not None and old.kind == entry.kind == _DIRECTORY:
            yield entry.path, old
            return
        if old is not None:
            yield from _flat(entry.path, old)
        parent.children[name] = _Node(entry.kind, entry.size)

    def _find(self, path: bytes) -> _Node | None:
        node: _Node | None = self._root
        for name in path.split(b"/") if path else ():
            node = node.children.get(name) if node is not None else None
        return node


def _flat(path: bytes, node: _Node) -> Iterator[tuple[bytes, _Node]]:
    yield path, node
    for name, child in node.children.items():
        yield from _flat(join(path, name), child)
