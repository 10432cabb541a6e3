"""A lazy layer as nodes see it: names and attributes from its skeleton, bytes from wherever they are.

A `layerfs.view.source.LayerSource`. What a file holds is an object of the store; or the file of the extracted
layer, once that is there; or it has to be fetched.
"""

import os
from collections.abc import Callable
from errno import EIO
from stat import S_ISREG

from layerfs.errors import InvalidToc
from layerfs.layer.overlayfs import object_of, object_path, stub_xattrs
from layerfs.layer.paths import shown
from layerfs.layer.record import OwnerKind
from layerfs.needs import Need
from layerfs.oci.image import LayerKey
from layerfs.store import ImageStorage
from layerfs.store.xattrs import read_one
from layerfs.view.disk import DiskSource, OpenDirectory
from layerfs.view.nodes import FileContent


class LayerBytes:
    """Where the bytes of one lazy layer's files are.

    *open_directory* keeps a directory of the store open, *fetch* returns the need for an object that is not
    here.
    """

    def __init__(
        self,
        storage: ImageStorage,
        key: LayerKey,
        open_directory: Callable[[bytes], OpenDirectory],
        fetch: Callable[[str], Need],
    ) -> None:
        self._storage = storage
        self._key = key
        self._open_directory = open_directory
        self._fetch = fetch

    def of(self, id_: str, path: bytes, size: int) -> FileContent | Need:
        """Return how to open *path*, whose *size* bytes are the object *id_*; or what it waits for.

        Raises InvalidToc if the layer is not what its TOC says, StoreError, ImageError, OSError.
        """
        require_same(self._storage, self._key)
        objects = self._storage.lazy.objects
        found = objects.find(id_)
        if found is not None:
            self._require_size(path, found.size, size)
            directory = self._open_directory(os.fsencode(objects.directory))
            return FileContent(directory.fd, object_path(id_).encode("ascii"), size)
        whole = self._whole()
        if whole is None:
            return self._fetch(id_)
        status = whole.lstat(path)
        self._require_size(path, status.st_size if status and S_ISREG(status.st_mode) else -1, size)
        return whole.content(path, size)

    def _whole(self) -> DiskSource | None:
        """Return the extracted layer, if it is here and was found to be what the TOC says.

        Until then it may be another one, with links out of it where the TOC has directories.
        """
        toc = self._key.toc
        if toc is None or not self._storage.lazy.tocs.is_equal(toc, self._key.digest):
            return None
        layer = self._storage.open_layer(self._key.digest)
        if layer is None:
            return None
        path = os.fsencode(layer.path)
        return DiskSource(self._open_directory(os.path.dirname(path)), os.path.basename(path))

    def _require_size(self, path: bytes, found: int, size: int) -> None:
        if found != size:
            what = f"{found} bytes" if found >= 0 else "no file"
            raise InvalidToc(f"layer {self._key.digest}: {shown(path)}: {what} (its TOC says {size})")


class SkeletonSource(DiskSource):
    """The skeleton *name* in *directory*, shown as *called*; files in it belong to *owner*."""

    def __init__(
        self, directory: OpenDirectory, name: bytes, called: bytes, owner: OwnerKind, files: LayerBytes
    ) -> None:
        super().__init__(directory, name, called)
        self._files = files
        _, self._redirect = stub_xattrs(owner)

    def content(self, path: bytes, size: int) -> FileContent | Need:
        """Return how to open the file *path*, or what it waits for.

        Raises InvalidToc if the layer is not what its TOC says, StoreError, ImageError, OSError.
        """
        if not size:
            return super().content(path, size)
        redirect = read_one(self.full_path(path), self._redirect)
        id_ = None if redirect is None else object_of(redirect)
        if id_ is None:
            raise OSError(EIO, f"{shown(path)}: the skeleton has lost its attribute {self._redirect}")
        return self._files.of(id_, path, size)


def require_same(storage: ImageStorage, key: LayerKey) -> None:
    """Raise InvalidToc if the archive of a lazy layer was found to be another than its TOC says."""
    assert key.toc is not None, "it is lazy"
    difference = storage.lazy.tocs.difference(key.toc, key.digest)
    if difference:
        raise InvalidToc(f"layer {key.digest}: its archive is not what its TOC {key.toc} says: {difference}")
