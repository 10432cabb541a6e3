"""What the files of one layer are: nodes, numbers, markers, and what the disk could not carry.

Decides that a file is the same in ``diff/``, ``lower/`` and ``rootfs/``: one node, one number.
"""

import os
from collections.abc import Callable, Mapping
from errno import ENOENT
from stat import S_IFMT, S_ISDIR, S_ISREG
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from layerfs.layer.kinds import Kind, kind_of
from layerfs.layer.lost import Lost
from layerfs.layer.merge import LayerMarks
from layerfs.layer.overlayfs import XATTR_PREFIXES, OverlayForm
from layerfs.layer.paths import join, shown
from layerfs.layer.record import Extraction
from layerfs.needs import Need
from layerfs.store import LayerDir
from layerfs.view.disk import DiskSource, OpenDirectory
from layerfs.view.escaped import EscapedSource
from layerfs.view.inodes import LAST_NUMBER, InodeTable, number_of, offset_number
from layerfs.view.nodes import Attributes, Content, FileStatus, Node, blocks_of, blocks_shown
from layerfs.view.presence import Presence
from layerfs.view.source import LayerSource
from layerfs.view.tables import ReadTables, TableCache

FILE: Final = b"file"
"""The form of everything but directories: the same node wherever the layer is shown."""

N = TypeVar("N", bound=Node)


class LayerTree:
    """One layer, shared by its nodes: what its source has, and what its record adds.

    Nodes hold it, so a layer keeps its source, and with it its inode numbers, for as long as the kernel
    knows one of its files. Paths are relative to the layer; its root is the empty path. *read* gets what the
    record lists, which stays in memory no longer than *cache* says.
    """

    def __init__(
        self,
        source: LayerSource,
        extraction: Extraction,
        inodes: InodeTable,
        read: ReadTables,
        cache: TableCache,
        presence: Presence | None = None,
    ) -> None:
        self.source = source
        self.presence = presence
        """What has the layer back if it is removed; None if nobody would fetch it."""
        self.inodes = inodes
        self._read = read
        self._cache = cache
        self._has_lost = extraction.lost > 0
        self._owned_by_user = extraction.owner == "user"
        self._is_skeleton = extraction.objects > 0
        self._keys: dict[bytes, tuple[bytes, int]] = {}
        self._file_key, self._file_base = self._key(FILE)
        self.is_plain = not (self._has_lost or self._owned_by_user)
        """Whether the disk says all of every file, blocks aside."""
        self._file_type = StubFile if self._is_skeleton else ContentFile

    @property
    def marks(self) -> LayerMarks:
        """What the layer's markers hide. Raises NotInStore, StoreDamaged."""
        return self._cache.get(self.source.name, self._read).marks

    @property
    def form(self) -> OverlayForm:
        """What the markers stand for in overlay form. Raises NotInStore, StoreDamaged."""
        marks = self.marks
        return OverlayForm(marks.hidden, marks.opaque, self._kind)

    def _kind(self, path: bytes) -> Kind | None:
        status = self.source.lstat(path)
        return None if status is None else kind_of(status.st_mode, status.st_rdev)

    def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        """Return the attributes of *path*, without those that only the kernel's overlay should see."""
        found = self.source.xattrs(path)
        lost = self._lost(path)
        if lost is not None and lost.xattrs:
            found = {**found, **lost.xattrs}
        if any(name.startswith(XATTR_PREFIXES) for name in found):
            return {name: value for name, value in found.items() if not name.startswith(XATTR_PREFIXES)}
        return found

    def attributes(self, path: bytes, status: FileStatus) -> Attributes:
        """Return what stat(2) shows of *path*: its *status* on disk and what that could not carry.

        On the disk of an ordinary user every file is their own, whatever the archive says. So an owner that
        was lost is in the record, and where none is, it is root.
        """
        found = attributes_of(status)
        if self._owned_by_user:
            found.uid = found.gid = 0
        if self._is_skeleton and S_ISREG(found.mode):
            found.blocks = blocks_of(found.size)  # no file of a skeleton has any
        lost = self._lost(path)
        return found if lost is None else restored(found, lost)

    def _lost(self, path: bytes) -> Lost | None:
        """Return what the record says of *path*. Raises NotInStore, StoreDamaged."""
        return self._cache.get(self.source.name, self._read).lost(path) if self._has_lost else None

    def file(self, directory: bytes, name: bytes, status: FileStatus) -> "ContentFile":
        """Return the node of what is no directory. All hard links to it are one node.

        As `node` does, but without a call that could be spared: most of a layer comes through here.
        """
        ino = status.st_ino
        identity = (ino, status.st_ctime_ns, self._file_key)
        found = self.inodes.find((self._file_base + ino) & LAST_NUMBER, identity)
        if type(found) is not int:
            return found  # type: ignore[return-value]  # one identity has one class
        return self.inodes.add(self._file_type(found, self, directory, name, status), identity)

    def node(self, form: bytes, status: FileStatus, make: Callable[[int], N]) -> N:
        """Return the one node of what *status* describes, in one of the forms that a layer is shown in."""
        found = self._keys.get(form)
        if found is None:
            found = self._keys[form] = self._key(form)
        key, base = found
        # The change time tells a file from one that took its number when the layer was extracted again.
        identity = (status.st_ino, status.st_ctime_ns, key)
        return self.inodes.intern(offset_number(base, status.st_ino), identity, make)

    def _key(self, form: bytes) -> tuple[bytes, int]:
        key = form + b"/" + self.source.name
        return key, number_of(key)


class LayerTrees:
    """The layer directories that nodes of this mount use."""

    def __init__(self, inodes: InodeTable) -> None:
        self._inodes = inodes
        self._tables = TableCache()
        self._directories: dict[bytes, OpenDirectory] = {}
        self._trees: WeakValueDictionary[bytes, LayerTree] = WeakValueDictionary()

    def open(self, layer: LayerDir, lacking: Callable[[], Need | None] | None = None) -> LayerTree:
        """Return the tree of a published layer; *lacking* says what to obtain once it has gone.

        Raises OSError.
        """
        source = EscapedSource if layer.record.escaped else DiskSource
        return self.open_as(os.fsencode(layer.path), layer, source, lacking)

    def open_as(
        self,
        key: bytes,
        layer: LayerDir,
        source: Callable[[OpenDirectory, bytes], LayerSource],
        lacking: Callable[[], Need | None] | None,
    ) -> LayerTree:
        """Return the tree that is shown as *key*, made by *source* if nobody uses it. Raises OSError."""
        tree = self._trees.get(key)
        if tree is None:
            path = os.fsencode(layer.path)
            directory = self.directory(os.path.dirname(path))
            tree = self._trees[key] = LayerTree(
                source(directory, os.path.basename(path)),
                layer.record.layer,
                self._inodes,
                layer.tables,
                self._tables,
                None if lacking is None else Presence(directory, lacking),
            )
        return tree

    def used(self, key: bytes) -> LayerTree | None:
        """Return the tree that is shown as *key*, None if nobody uses it."""
        return self._trees.get(key)

    def directory(self, path: bytes) -> OpenDirectory:
        """Return the open directory *path*; it stays open. Raises OSError."""
        found = self._directories.get(path)
        if found is None:
            found = self._directories[path] = OpenDirectory(path)
        return found


class ContentFile(Node):
    """A file, link, device, pipe or socket of a layer."""

    __slots__ = ("_directory", "_name", "_size", "_status", "_tree", "_xattrs")

    def __init__(self, ino: int, tree: LayerTree, directory: bytes, name: bytes, status: FileStatus) -> None:
        super().__init__(ino)
        self._tree = tree
        self._directory = directory
        self._name = name
        self._status: FileStatus | None = status
        self._size: int | None = status.st_size if S_ISREG(status.st_mode) else None
        """Bytes of a regular file; None for what cannot be opened."""
        self._xattrs: Mapping[bytes, bytes] | None = None

    @property
    def path(self) -> bytes:
        """Where it is in its layer; one of the places, for hard links."""
        return join(self._directory, self._name)

    def attributes(self) -> Attributes:
        """Return what the layer says. Raises OSError."""
        status = self._status or self._tree.source.lstat(self.path)
        if status is None:
            raise FileNotFoundError(ENOENT, f"{shown(self.path)}: the layer was removed")
        return self._tree.attributes(self.path, status)

    def pop_status(self) -> FileStatus | None:
        """Return what the disk said, if the layer says no more."""
        status = self._status if self._tree.is_plain else None
        self._status = None
        return status

    def readlink(self) -> bytes | Need:
        """Return the target, unchanged; waits for a layer that was removed. Raises OSError."""
        presence = self._tree.presence
        return self._target() if presence is None else presence.trust(self._target)

    def open(self) -> Content | Need:
        """Return the file on disk; waits for a layer that was removed.

        Raises OSError for what only the kernel can open.
        """
        presence = self._tree.presence
        return self._content() if presence is None else presence.trust(self._content)

    def _target(self) -> bytes:
        return self._tree.source.readlink(self.path)

    def _content(self) -> Content | Need:
        size = self._size
        if size is None or not (self._tree.is_plain or S_ISREG(self.attributes().mode)):
            return super().open()
        return self._tree.source.content(self.path, size)

    def xattrs(self) -> Mapping[bytes, bytes]:
        """Return what the layer says. Raises OSError."""
        if self._xattrs is None:
            self._xattrs = self._tree.xattrs(self.path)
        return self._xattrs

    def forgotten(self) -> None:
        """Drop the attributes that are on disk."""
        self._xattrs = None


class StubFile(ContentFile):
    """A file of a skeleton, which has no blocks on the disk: shown are those of its bytes."""

    __slots__ = ()

    def blocks(self, status: FileStatus) -> int:
        """Return how many blocks the bytes fill."""
        return super().blocks(status) if self._size is None else blocks_of(self._size)


def is_directory(status: FileStatus) -> bool:
    """Say whether this is a directory."""
    return S_ISDIR(status.st_mode)


def attributes_of(status: FileStatus) -> Attributes:
    """Return *status* as it is on disk, but with blocks that no tool takes for a hole where there is none."""
    size = status.st_size
    return Attributes(
        status.st_mode,
        size,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_rdev,
        blocks_shown(size, status.st_blocks),
        status.st_atime_ns,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def restored(attributes: Attributes, lost: Lost) -> Attributes:
    """Return *attributes* with what an unprivileged writer could not put on the disk."""
    if lost.mode is not None:
        attributes.mode = lost.mode if S_IFMT(lost.mode) else S_IFMT(attributes.mode) | lost.mode
    if lost.owner is not None:
        attributes.uid, attributes.gid = lost.owner
    if lost.device is not None:
        attributes.rdev = os.makedev(*lost.device)
    return attributes
