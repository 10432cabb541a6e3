"""Nodes over a source that is no disk: what they need of a layer is `LayerSource`, and nothing else."""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from layerfs.layer.kinds import Kind, kind_of
from layerfs.layer.record import Extraction
from layerfs.layer.tables import Tables
from layerfs.view.content import LayerTree
from layerfs.view.diff import DiffDirectory
from layerfs.view.inodes import InodeTable
from layerfs.view.lower import LowerDirectory
from layerfs.view.nodes import FileContent, Node
from layerfs.view.rootfs import Stack
from layerfs.view.source import LayerSource
from layerfs.view.tables import TableCache
from tests.view.scene import names


@dataclass(frozen=True)
class Entry:
    """A line of a table of contents: what a layer says of a file, without the file."""

    st_ino: int
    st_mode: int
    st_size: int = 0
    st_nlink: int = 1
    st_uid: int = 0
    st_gid: int = 0
    st_rdev: int = 0
    st_blocks: int = 0
    st_atime_ns: int = 0
    st_mtime_ns: int = 7
    st_ctime_ns: int = 0
    target: bytes = b""
    attributes: Mapping[bytes, bytes] = field(default_factory=dict)


DIRECTORY, FILE, LINK = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o640, stat.S_IFLNK | 0o777


class Contents:
    """A layer in memory."""

    def __init__(self, name: bytes, entries: Mapping[bytes, Entry]) -> None:
        self.name = name
        self._entries = {b"": Entry(1, DIRECTORY), **entries}

    def lstat(self, path: bytes) -> Entry | None:
        return self._entries.get(path)

    def kinds(self, path: bytes) -> list[tuple[bytes, Kind | None]]:
        return [(name, kind_of(found.st_mode, found.st_rdev)) for name, found in self.scan(path)]

    def statuses(self, path: bytes, names: Sequence[bytes]) -> list[Entry | None]:
        here = dict(self.scan(path))
        return [here.get(name) for name in names]

    def scan(self, path: bytes) -> list[tuple[bytes, Entry]]:
        return [
            (os.path.basename(each), found)
            for each, found in self._entries.items()
            if each and os.path.dirname(each) == path
        ]

    def scan_small(self, path: bytes, most: int) -> list[tuple[bytes, Entry]] | None:
        found = self.scan(path)
        return found if len(found) <= most else None

    def readlink(self, path: bytes) -> bytes:
        return self._entries[path].target

    def content(self, path: bytes, size: int) -> FileContent:
        return FileContent(-1, b"object of " + path, size)

    def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        return self._entries[path].attributes


BASE = {
    b"etc": Entry(2, DIRECTORY, attributes={b"user.note": b"n", b"trusted.overlay.opaque": b"y"}),
    b"etc/motd": Entry(3, FILE, 5, st_nlink=2, st_uid=70_000),
    b"etc/copy": Entry(3, FILE, 5, st_nlink=2, st_uid=70_000),
    b"etc/link": Entry(4, LINK, 4, target=b"motd"),
    b"gone": Entry(5, FILE, 1),
}
TOP = {b".wh.gone": Entry(2, FILE), b"new": Entry(3, FILE, 9)}


def tree(source: LayerSource, inodes: InodeTable, **tables: bytes) -> LayerTree:
    extraction = Extraction(
        digest="sha256:" + "0" * 64, diff_id="sha256:" + "1" * 64, blob_size=1, tar_size=1,
        compression="none", entries=1, files=1, file_bytes=1,
    )  # fmt: skip
    return LayerTree(source, extraction, inodes, lambda: Tables(**tables), TableCache())


def test_a_layer_is_browsed_without_a_disk() -> None:
    inodes = InodeTable()
    layer = tree(Contents(b"base", BASE), inodes)
    root = DiffDirectory(2, layer, b"", Entry(1, DIRECTORY))

    etc = root.lookup(b"etc")
    assert isinstance(etc, Node)
    assert names(root.entries()) == [b"etc", b"gone"]
    assert etc.xattrs() == {b"user.note": b"n"}
    motd, copy, link = (etc.lookup(name) for name in (b"motd", b"copy", b"link"))
    assert isinstance(motd, Node)
    assert isinstance(link, Node)
    assert motd is copy
    found = motd.attributes()
    assert (found.mode, found.size, found.nlink, found.uid, found.blocks) == (FILE, 5, 2, 70_000, 1)
    assert motd.open() == FileContent(-1, b"object of etc/motd", 5)
    assert link.readlink() == b"motd"
    assert root.lookup(b"absent") is None


@pytest.mark.parametrize("count", [1, 1000])
def test_directories_of_any_size_list_the_same(count: int) -> None:
    files = {b"%04d" % number: Entry(10 + number, FILE) for number in range(count)}
    root = DiffDirectory(2, tree(Contents(b"many", files), InodeTable()), b"", Entry(1, DIRECTORY))

    assert names(root.entries()) == sorted(files)


def test_markers_of_a_source_become_whiteouts_and_hide() -> None:
    inodes = InodeTable()
    base = tree(Contents(b"base", BASE), inodes)
    top = tree(Contents(b"top", TOP), inodes, whiteouts=b".wh.gone\0")
    lower = LowerDirectory(2, top, b"", Entry(1, DIRECTORY))
    whiteout = lower.lookup(b"gone")
    assert isinstance(whiteout, Node)
    assert stat.S_ISCHR(whiteout.attributes().mode)
    assert names(lower.entries()) == [b"gone", b"new"]

    merged = Stack(b"stack", [base, top], inodes).root(3)
    assert merged is not None
    assert names(merged.entries()) == [b"etc", b"new"]
    assert merged.lookup(b"gone") is None
