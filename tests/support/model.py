"""A model of the image specification: layers applied one by one to a tree in memory.

Written from image-spec layer.md alone, on purpose without code of `layerfs.layer`: it is the second opinion.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from tests.support.canary import Fact, Snapshot
from tests.support.images import Entry

_HARDLINK, _DIRECTORY = b"1", b"5"
_KINDS = {b"0": "-", _DIRECTORY: "d", b"2": "l", b"6": "p", b"3": "c", b"4": "b"}

IMPLIED = Fact(kind="d", mode=0o755, owner=(0, 0), mtime_ns=0)
"""What a directory gets that no layer lists."""


@dataclass(slots=True, eq=False)
class Inode:
    """One inode; names share it through hard links."""

    fact: Fact
    """Without saying which names share it."""
    listed: bool = True
    links: int = 1
    """Names it has in its layer, also those that upper layers hide: what overlayfs counts."""

    @property
    def is_directory(self) -> bool:
        return self.fact.kind == "d"


Tree = dict[bytes, Inode]


@dataclass(slots=True)
class Changeset:
    """One layer by itself."""

    tree: Tree = field(default_factory=lambda: {b"": Inode(IMPLIED, listed=False)})
    whiteouts: set[bytes] = field(default_factory=set)
    """Paths to hide in lower layers."""
    opaques: set[bytes] = field(default_factory=set)


def apply(stack: Iterable[Sequence[Entry]]) -> Tree:
    """Return what a stack, base first, looks like."""
    merged: Tree = {}
    for entries in stack:
        _apply_one(merged, changeset(entries))
    return merged


def snapshot(tree: Tree) -> Snapshot:
    """Describe a tree as `tests.support.canary` describes one on disk."""
    names: dict[Inode, list[bytes]] = {}
    for path in sorted(tree):
        names.setdefault(tree[path], []).append(path)
    groups = {inode: tuple(found) if len(found) > 1 else () for inode, found in names.items()}
    return {path: replace(inode.fact, links=groups[inode]) for path, inode in tree.items()}


def changeset(entries: Sequence[Entry]) -> Changeset:
    """Read one layer: a later entry replaces an earlier one, a hard link may name a later one."""
    layer = Changeset()
    for entry in entries:
        if entry.kind != _HARDLINK:
            _add(layer, _path(entry.name), Inode(_fact(entry)))
    links = [(_path(entry.name), _path(entry.target)) for entry in entries if entry.kind == _HARDLINK]
    while links:
        left = [(name, target) for name, target in links if target not in layer.tree]
        for name, target in links:
            if (name, target) not in left:
                _add(layer, name, layer.tree[target])
        if len(left) == len(links):
            raise ValueError(f"hard links to nothing: {left}")
        links = left
    for inode in set(layer.tree.values()):
        inode.links = sum(other is inode for other in layer.tree.values())
    return layer


def _add(layer: Changeset, path: bytes, inode: Inode) -> None:
    _imply(layer.tree, path)
    directory, _, name = path.rpartition(b"/")
    if name == b".wh..wh..opq":
        layer.opaques.add(directory)
    elif name.startswith(b".wh..wh."):
        pass
    elif name.startswith(b".wh."):
        layer.whiteouts.add(os.path.join(directory, name.removeprefix(b".wh.")))
    else:
        there = layer.tree.get(path)
        if there is not None and not (there.is_directory and inode.is_directory):
            _remove(layer.tree, path)
        layer.tree[path] = inode


def _imply(tree: Tree, path: bytes) -> None:
    parts = path.split(b"/")
    for depth in range(1, len(parts)):
        parent = tree.setdefault(b"/".join(parts[:depth]), Inode(IMPLIED, listed=False))
        if not parent.is_directory:
            raise ValueError(f"{path!r} lies below a file")


def _apply_one(merged: Tree, layer: Changeset) -> None:
    """Apply one layer: first what it removes, which is never its own, then what it brings."""
    for path in layer.opaques:
        _remove_below(merged, path)
    for path in layer.whiteouts:
        _remove(merged, path)
    for path in sorted(layer.tree):  # a parent's path is a prefix, so it sorts first
        inode, there = layer.tree[path], merged.get(path)
        if there is None or not (there.is_directory and inode.is_directory):
            _remove(merged, path)
            merged[path] = inode
        elif inode.listed:
            merged[path] = inode


def _remove(tree: Tree, path: bytes) -> None:
    if tree.pop(path, None) is not None:
        _remove_below(tree, path)


def _remove_below(tree: Tree, path: bytes) -> None:
    for other in [other for other in tree if other and (not path or other.startswith(path + b"/"))]:
        del tree[other]


def _path(name: str | bytes) -> bytes:
    return os.path.normpath(b"/" + os.fsencode(name)).lstrip(b"/")


def _fact(entry: Entry) -> Fact:
    kind = _KINDS[entry.kind]
    target = os.fsencode(entry.target)
    return Fact(
        kind=kind,
        mode=0o777 if kind == "l" else entry.mode,
        owner=(entry.uid, entry.gid),
        mtime_ns=round(entry.mtime * 4) * 250_000_000,  # the strategy draws quarters of seconds
        size={"-": len(entry.content), "l": len(target)}.get(kind),
        device=os.makedev(*entry.device) if kind in "bc" else None,
        target=target if kind == "l" else None,
        content=hashlib.sha256(entry.content).hexdigest() if kind == "-" else None,
        xattrs=tuple(sorted(entry.xattrs.items())),
    )
