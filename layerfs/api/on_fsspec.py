"""Images for programs that read by fsspec: ``layerfs://docker.io/library/alpine:3.20/etc/os-release``.

What stands before the first ``/`` behind a tag or digest is the image, the rest a path in its merged root.
Read-only. Needs the extra ``layerfs[fsspec]``.
"""

import contextlib
from datetime import UTC, datetime
from errno import EROFS
from functools import partial
from io import SEEK_SET
from typing import Any, BinaryIO, ClassVar

from fsspec import AbstractFileSystem

from layerfs.api.blocking import Image, Store
from layerfs.api.facts import ImageEntry
from layerfs.api.options import Options, StrPath
from layerfs.errors import InvalidReference
from layerfs.oci.reference import is_registry


class ImageFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec says nothing of its types
    """The merged roots of images. *store* is the path of one; the rest is as for `layerfs.Store.open`.

    What a tag names is asked once for each filesystem, unless the store knows it.
    """

    protocol: ClassVar[str] = "layerfs"
    root_marker: ClassVar[str] = ""

    def __init__(self, store: StrPath | None = None, **options: Any) -> None:
        known = {name: value for name, value in options.items() if name in Options.__annotations__}
        super().__init__(**{name: value for name, value in options.items() if name not in known})
        self._open_store = partial(Store.open, store, **known)
        self._store: Store | None = None
        self._images: dict[str, Image] = {}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """List a directory, or tell of a file."""
        image, inner, begin = self._image(path)
        if not image.stat(inner).is_dir:
            found = [self._told(image, inner, begin)]
        else:
            names = image.listdir(inner)
            found = [self._told(image, f"{inner.rstrip('/')}/{name}", begin) for name in names]
        return found if detail else [one["name"] for one in found]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Tell of what is at *path*; of what a link leads to, if that is there."""
        image, inner, begin = self._image(path)
        return self._told(image, inner, begin)

    def created(self, path: str) -> Any:
        """Return when it changed last: an archive knows no other time."""
        return self.modified(path)

    def modified(self, path: str) -> Any:
        """Return when it changed last."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def close(self) -> None:
        """Close the store. Harmless a second time."""
        store, self._store = self._store, None
        self._images.clear()
        if store is not None:
            store.close()

    def _told(self, image: Image, inner: str, begin: str) -> dict[str, Any]:
        entry = image.stat(inner, follow_symlinks=False)
        found: dict[str, Any] = {"name": f"{begin}{'' if inner == '/' else inner}"}
        if entry.is_symlink:
            found |= {"islink": True, "destination": image.readlink(inner)}
            with contextlib.suppress(OSError):  # it leads nowhere
                entry = image.stat(inner)
        return found | {
            "size": entry.size if entry.is_file else 0,
            "type": _type_of(entry),
            "mode": entry.mode,
            "uid": entry.uid,
            "gid": entry.gid,
            "nlink": entry.nlink,
            "mtime": entry.mtime_ns / 1e9,
        }

    def _open(self, path: str, mode: str = "rb", **_: Any) -> BinaryIO:
        if mode != "rb":
            raise OSError(EROFS, "images are read-only", path)
        image, inner, _begin = self._image(path)
        return image.open(inner)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return what a file holds, or a part of it."""
        with self._open(path) as file:
            size = file.seek(0, 2)
            begin, stop, _step = slice(start, end).indices(size)
            file.seek(begin, SEEK_SET)
            return file.read(max(0, stop - begin))

    def _image(self, path: str) -> tuple[Image, str, str]:
        """Return the image, the path in it, and what stands before that. Raises InvalidReference."""
        reference, inner = split_path(self._strip_protocol(path))
        image = self._images.get(reference)
        if image is None:
            if self._store is None:
                self._store = self._open_store()
            image = self._images[reference] = self._store.image(reference)
        return image, inner, reference


def split_path(path: str) -> tuple[str, str]:
    """Split a path into the name of an image and the path in it. Raises InvalidReference."""
    parts = path.split("/")
    first = 1 if len(parts) > 1 and is_registry(parts[0]) and _is_host(parts) else 0
    for number in range(first, len(parts)):
        if ":" in parts[number] or "@" in parts[number]:
            return "/".join(parts[: number + 1]), "/" + "/".join(parts[number + 1 :])
    raise InvalidReference(
        f"{path!r}: where does the image end? (expected NAME:TAG/PATH or NAME@DIGEST/PATH)"
    )


def _is_host(parts: list[str]) -> bool:
    """Say whether the first part can only be a registry: ``alpine:3/etc`` begins with an image."""
    name, colon, port = parts[0].partition(":")
    return not colon or "." in name or name == "localhost" or not port.isdecimal() or _is_tagged(parts[1:])


def _is_tagged(parts: list[str]) -> bool:
    return any(":" in part or "@" in part for part in parts)


def _type_of(entry: ImageEntry) -> str:
    return "file" if entry.is_file else "directory" if entry.is_dir else "other"
