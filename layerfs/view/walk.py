"""All of an image or a layer at once, for programs: no mount, no kernel, the same rules.

Decides the order: depth first, names sorted, a directory before what is in it.
"""

import stat
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Final

from layerfs.layer.changes import EntryKind, LayerEntry, Rights
from layerfs.layer.kinds import kind_of
from layerfs.layer.paths import join
from layerfs.layer.whiteout import is_marker
from layerfs.store import LayerDir
from layerfs.view.content import LayerTrees
from layerfs.view.inodes import ROOT_INO, InodeTable
from layerfs.view.merged import MergedDirectory, Stack
from layerfs.view.nodes import Node

_KINDS: Final[dict[int, EntryKind]] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}


def merged_root(layers: Sequence[LayerDir]) -> MergedDirectory | None:
    """Return the root of a stack of layers, base first; None without layers. Raises OSError."""
    if not layers:
        return None
    inodes = InodeTable()
    trees = LayerTrees(inodes)
    return Stack(b"walk", [trees.open(layer) for layer in layers], inodes).root(ROOT_INO)


def walk(root: MergedDirectory) -> Iterator[tuple[bytes, Node]]:
    """Yield every entry with its path, the root first, as the empty path. Raises OSError."""
    waiting: list[tuple[bytes, Node]] = [(b"", root)]
    while waiting:
        path, node = waiting.pop()
        yield path, node
        if isinstance(node, MergedDirectory):
            below = path + b"/" if path else b""
            waiting += sorted(
                ((below + name, child) for name, child in node.listing()),
                key=lambda entry: entry[0],
                reverse=True,
            )


def layer_entries(layer: LayerDir) -> Iterator[LayerEntry]:
    """Yield what one layer has, markers left out, directories before their entries. Raises OSError."""
    tree = LayerTrees(InodeTable()).open(layer)
    seen: set[int] = set()
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        for name, status in sorted(tree.source.scan(directory), key=itemgetter(0)):
            if is_marker(name) or kind_of(status.st_mode, status.st_rdev) is None:
                continue
            path = join(directory, name)
            found = tree.attributes(path, status)
            if stat.S_ISDIR(found.mode):
                waiting.append(path)
            is_new = stat.S_ISREG(found.mode) and status.st_ino not in seen
            seen.add(status.st_ino)
            yield LayerEntry(
                path,
                _KINDS[stat.S_IFMT(found.mode)],
                found.size if is_new else 0,
                Rights(found.mode, found.uid, found.gid),
                (found.size, found.mtime_ns),
            )
