"""What each layer of a stack changes in the layers below it: entries added, changed and removed, with sizes.

Decides from paths, markers and what lstat(2) says; does no I/O, so it knows no bytes. Follows the rules of
`layer.merge`, but keeps the whole union in memory and applies layer after layer, base first.
"""

from collections.abc import Iterable, Iterator
from typing import Final, Literal

import msgspec

from layerfs.layer.merge import LayerMarks
from layerfs.layer.paths import join, split

Change = Literal["added", "changed", "removed"]
EntryKind = Literal["file", "directory", "link", "device", "pipe", "socket"]

_DIRECTORY: Final[EntryKind] = "directory"


class Rights(msgspec.Struct, frozen=True):
    """Who may do what with an entry."""

    mode: int
    """Kind, set-user-id and its like, and permissions, as st_mode has them."""
    uid: int
    gid: int


class LayerEntry(msgspec.Struct, frozen=True):
    """What one layer has at a path, markers left out."""

    path: bytes
    """Relative; not the root."""
    kind: EntryKind
    size: int
    """Bytes of content; 0 for the second name of a file."""
    rights: Rights
    stamp: tuple[int, int]
    """Bytes, of a second name as well, and nanoseconds of the last modification.

    Where they are the same, the content is in nearly all cases.
    """


class Changed(msgspec.Struct, frozen=True):
    """One difference that a layer makes."""

    path: bytes
    change: Change
    kind: EntryKind
    size: int
    """Bytes that the layer brings, or for what it removes, that are not visible any more."""
    rights: Rights
    """Those of what the layer brings, or of what it removes."""
    replaced: int = 0
    """Bytes of a lower layer that it hides."""
    before: Rights | None = None
    """Those of what it changes."""
    only_rights: bool = False
    """Whether mode or owner changed, and size and time of modification did not: probably the same bytes."""


class _Node(msgspec.Struct):
    kind: EntryKind
    size: int
    rights: Rights
    stamp: tuple[int, int]
    children: dict[bytes, "_Node"] = msgspec.field(default_factory=dict)


class Union:
    """The union of the layers that were applied so far."""

    def __init__(self) -> None:
        self._root = _Node(_DIRECTORY, 0, Rights(0, 0, 0), (0, 0))

    def apply(self, entries: Iterable[LayerEntry], marks: LayerMarks) -> list[Changed]:
        """Put a layer on top, its directories before what is in them; return what it changes.

        A directory that is there already is no change, unless it gets another mode or owner: archives list
        parents for the sake of their children. What they do not list keeps mode and owner.
        """
        gone = dict(self._hide(marks))
        changes = []
        for entry in (self._inheriting(one, marks) for one in entries):
            before = gone.pop(entry.path, None)
            for path, node in self._put(entry):
                if path == entry.path:
                    before = node
                else:
                    gone[path] = node
            if before is None:
                changes.append(Changed(entry.path, "added", entry.kind, entry.size, entry.rights))
            elif before.kind != _DIRECTORY or entry.kind != _DIRECTORY or entry.rights != before.rights:
                changes.append(_changed(entry, before))
        return changes + [
            Changed(path, "removed", node.kind, node.size, node.rights, node.size)
            for path, node in gone.items()
        ]

    def _inheriting(self, entry: LayerEntry, marks: LayerMarks) -> LayerEntry:
        """Return *entry*; one that its layer does not list, with the mode and owner that are there."""
        if entry.kind == _DIRECTORY and entry.path in marks.implied:
            there = self._find(entry.path)
            if there is not None and there.kind == _DIRECTORY:
                return msgspec.structs.replace(entry, rights=there.rights)
        return entry

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
            yield entry.path, _Node(old.kind, old.size, old.rights, old.stamp)
            old.rights = entry.rights
            return
        if old is not None:
            yield from _flat(entry.path, old)
        parent.children[name] = _Node(entry.kind, entry.size, entry.rights, entry.stamp)

    def _find(self, path: bytes) -> _Node | None:
        node: _Node | None = self._root
        for name in path.split(b"/") if path else ():
            node = node.children.get(name) if node is not None else None
        return node


def _changed(entry: LayerEntry, before: _Node) -> Changed:
    same = entry.kind == before.kind and (entry.kind == _DIRECTORY or entry.stamp == before.stamp)
    return Changed(
        entry.path,
        "changed",
        entry.kind,
        entry.size,
        entry.rights,
        before.size,
        before.rights,
        only_rights=same and entry.rights != before.rights,
    )


def _flat(path: bytes, node: _Node) -> Iterator[tuple[bytes, _Node]]:
    yield path, node
    for name, child in node.children.items():
        yield from _flat(join(path, name), child)
