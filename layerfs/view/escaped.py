"""A layer directory on a disk that has no ``.wh.`` names: shown as if it had (`layerfs.layer.escaping`)."""

from collections.abc import Iterator, Mapping, Sequence
from os import stat_result

from layerfs.layer.escaping import escaped, unescaped
from layerfs.layer.kinds import Kind
from layerfs.needs import Need
from layerfs.view.disk import DiskSource
from layerfs.view.nodes import FileContent


class EscapedSource(DiskSource):
    """A `DiskSource` that writes each path as the disk has it, and reads each name back."""

    def lstat(self, path: bytes) -> stat_result | None:
        """Return what is at *path*, None if nothing is. Raises OSError."""
        return super().lstat(escaped(path))

    def kinds(self, path: bytes) -> Iterator[tuple[bytes, Kind | None]]:
        """Yield the names in the directory *path*, as `kind_of` sees what they name. Raises OSError."""
        return ((unescaped(name), kind) for name, kind in super().kinds(escaped(path)))

    def statuses(self, path: bytes, names: Sequence[bytes]) -> list[stat_result | None]:
        """Return what is at each of *names* in *path*, None where nothing is. Raises OSError."""
        return super().statuses(escaped(path), list(map(escaped, names)))

    def scan(self, path: bytes) -> list[tuple[bytes, stat_result]]:
        """Return what the directory *path* holds, in the order of the disk. Raises OSError."""
        return [(unescaped(name), status) for name, status in super().scan(escaped(path))]

    def scan_small(self, path: bytes, most: int) -> list[tuple[bytes, stat_result]] | None:
        """Return what the directory *path* holds, None if it is more than *most* entries. Raises OSError."""
        found = super().scan_small(escaped(path), most)
        return None if found is None else [(unescaped(name), status) for name, status in found]

    def readlink(self, path: bytes) -> bytes:
        """Return the target of the link *path*. Raises OSError."""
        return super().readlink(escaped(path))

    def content(self, path: bytes, size: int) -> FileContent | Need:
        """Return how to open the file *path*. Raises OSError."""
        return super().content(escaped(path), size)

    def xattrs(self, path: bytes) -> Mapping[bytes, bytes]:
        """Return the attributes of *path* on disk. Raises OSError."""
        return super().xattrs(escaped(path))
