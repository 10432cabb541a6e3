"""``lower/``: a layer in the form that overlayfs wants, computed from its markers.

Decides by the record, so it is right where the filesystem refuses 0:0 devices and overlay xattrs, too. Shows
each marker as what it stands for and no marker as a file.
"""

from collections.abc import Iterator, Mapping
from stat import S_IFCHR
from typing import Final

from layerfs.layer.kinds import is_whiteout
from layerfs.layer.overlayfs import OPAQUE_XATTRS
from layerfs.layer.paths import join
from layerfs.layer.whiteout import Whiteout, is_marker, parse_marker
from layerfs.view.content import is_directory
from layerfs.view.diff import LayerDirectory
from layerfs.view.inodes import number_of
from layerfs.view.nodes import Attributes, FileStatus, Node

FORM: Final = b"lower"

_WHITEOUT_MODE: Final = S_IFCHR
"""The kernel makes whiteouts without permissions."""


class LowerDirectory(LayerDirectory):
    """A directory in ``lower/``."""

    __slots__ = ()

    @property
    def is_opaque(self) -> bool:
        """Whether nothing of lower layers shows here."""
        return self.tree.form.is_opaque(self.path)

    def entry(self, name: bytes, status: FileStatus | None) -> Node | None:
        """Return what overlayfs should see: the entry, or the whiteout that a marker stands for."""
        if is_marker(name):
            return None
        path, tree = join(self.path, name), self.tree
        if status is None or is_whiteout(status.st_mode, status.st_rdev):
            return self._whiteout(path) if tree.form.has_whiteout(path) else None
        if not is_directory(status):
            return tree.file(self.path, name, status)
        return tree.node(FORM, status, lambda ino: LowerDirectory(ino, tree, path, status))

    def names(self) -> Iterator[bytes | None]:
        """Yield the names of entries and of whiteouts. Raises OSError."""
        return (
            name if name is None or not is_marker(name) else self._hidden_by(name) for name in super().names()
        )

    def _hidden_by(self, name: bytes) -> bytes | None:
        """Return the name of the whiteout that a marker stands for."""
        marker = parse_marker(name)
        if isinstance(marker, Whiteout) and self.tree.form.has_whiteout(join(self.path, marker.hidden)):
            return marker.hidden
        return None

    def read_xattrs(self) -> Mapping[bytes, bytes]:
        """Return the layer's attributes, and the opaque one under both of its names."""
        found = super().read_xattrs()
        return {**found, **OPAQUE_XATTRS} if self.is_opaque else found

    def _whiteout(self, path: bytes) -> "WhiteoutNode":
        key = b"whiteout/%s/%s" % (self.tree.source.name, path)
        own = self.attributes()
        return self.tree.inodes.intern(number_of(key), key, lambda ino: WhiteoutNode(ino, own))


class WhiteoutNode(Node):
    """A 0:0 device that no disk holds; owner and time are those of the directory that it is in."""

    __slots__ = ("_directory",)

    def __init__(self, ino: int, directory: Attributes) -> None:
        super().__init__(ino)
        self._directory = directory

    def attributes(self) -> Attributes:
        """Return a character device 0:0."""
        own = self._directory
        return Attributes(
            mode=_WHITEOUT_MODE,
            uid=own.uid,
            gid=own.gid,
            atime_ns=own.mtime_ns,
            mtime_ns=own.mtime_ns,
            ctime_ns=own.mtime_ns,
        )
