"""A layer in memory, a `layerfs.view.source.LayerSource`: nodes are tested without a disk."""

import os
import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from errno import EIO

from layerfs.layer.kinds import Kind, kind_of
from layerfs.layer.paths import join
from layerfs.layer.record import Extraction, OwnerKind
from layerfs.layer.tables import Tables
from layerfs.view.content import LayerTree
from layerfs.view.inodes import InodeTable
from layerfs.view.nodes import FileContent
from layerfs.view.source import LayerSource
from layerfs.view.tables import TableCache


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
WHITEOUT = stat.S_IFCHR


class Contents:
    """A layer in memory. What is removed from *entries* or is in *broken* is so from then on."""

    def __init__(self, name: bytes, entries: Mapping[bytes, Entry]) -> None:
        self.name = name
        self.entries = {b"": Entry(1, DIRECTORY), **entries}
        self.broken: set[bytes] = set()
        self._children: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for path in filter(None, self.entries):
            self._children[os.path.dirname(path)].append(os.path.basename(path))

    def lstat(self, path: bytes) -> Entry | None:
        if path in self.broken:
            raise OSError(EIO, "planted in the source")
        return self.entries.get(path)

    def kinds(self, path: bytes) -> list[tuple[bytes, Kind | None]]:
        return [(name, kind_of(found.st_mode, found.st_rdev)) for name, found in self.scan(path)]

    def statuses(self, path: bytes, names: Sequence[bytes]) -> list[Entry | None]:
        return [self.lstat(join(path, name)) for name in names]

    def scan(self, path: bytes) -> list[tuple[bytes, Entry]]:
        below = ((name, self.entries.get(join(path, name))) for name in self._children[path])
        return [(name, found) for name, found in below if found is not None]

    def scan_small(self, path: bytes, most: int) -> list[tuple[bytes, Entry]] | None:
        found = self.scan(path)
        return found if len(found) <= most else None

    def readlink(self, path: bytes) -> bytes:
        return self.entries[path].target

    def content(self, path: bytes, size: int) -> FileContent:
        return FileContent(-1, b"object of " + path, size)

    def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        return self.entries[path].attributes


def tree(
    source: LayerSource,
    inodes: InodeTable,
    *,
    whiteouts: bytes = b"",
    opaques: bytes = b"",
    lost: bytes = b"",
    owner: OwnerKind = "root",
) -> LayerTree:
    """Return the layer of *source*, written by *owner*, with what its record lists: rows of tables."""
    extraction = Extraction(
        digest="sha256:" + "0" * 64, diff_id="sha256:" + "1" * 64, blob_size=1, tar_size=1,
        compression="none", entries=1, files=1, file_bytes=1, owner=owner, lost=lost.count(b"\0"),
    )  # fmt: skip
    tables = Tables(whiteouts=whiteouts, opaques=opaques, lost=lost)
    return LayerTree(source, extraction, inodes, lambda: tables, TableCache())
