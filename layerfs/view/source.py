"""Where the files of a layer come from: the contract between the nodes of the mount and what holds a layer.

That is a directory of the store (`layerfs.view.disk`), or a skeleton whose files are fetched one by one
(`layerfs.view.skeleton`). Nodes know nothing but this: what is at a path, what a directory holds, and a
status that looks like the one of lstat(2). Paths are relative to the layer; its root is the empty path.
Every method raises OSError.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from layerfs.layer.kinds import Kind
from layerfs.needs import Need
from layerfs.view.nodes import FileContent, FileStatus


class LayerSource(Protocol):
    """One layer, by path."""

    name: bytes
    """What tells the numbers of its files from those of other layers; the same each time it is opened."""

    def lstat(self, path: bytes) -> FileStatus | None:
        """Return what is at *path*, None if nothing is."""

    def kinds(self, path: bytes) -> Iterable[tuple[bytes, Kind | None]]:
        """Return the names in the directory *path*, as `layerfs.layer.kinds.kind_of` sees what they name.

        Always in the same order.
        """

    def statuses(self, path: bytes, names: Sequence[bytes]) -> Sequence[FileStatus | None]:
        """Return what is at each of *names* in the directory *path*, None where nothing is.

        Quicker than `lstat` of each.
        """

    def scan(self, path: bytes) -> Sequence[tuple[bytes, FileStatus]]:
        """Return what the directory *path* holds."""

    def scan_small(self, path: bytes, most: int) -> Sequence[tuple[bytes, FileStatus]] | None:
        """Return what the directory *path* holds, None if it is more than *most* entries.

        None, too, if an entry cannot be looked at: whoever asks for it alone is told why.
        """

    def readlink(self, path: bytes) -> bytes:
        """Return the target of the link *path*."""

    def content(self, path: bytes, size: int) -> FileContent | Need:
        """Return how to open the regular file *path*, which has *size* bytes; or what it waits for.

        Raises LayerfsError besides.
        """

    def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        """Return all attributes of *path*, those of overlayfs included."""
