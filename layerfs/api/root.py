"""The merged root of an image, read without a mount: the nodes of the view, asked by a program.

Symbolic links lead within the root, as after chroot(2). What is not here is fetched when it is asked for: of
a layer with a TOC its list and the files that are opened, any other layer whole.
"""

import os
import stat
from collections.abc import Awaitable, Callable, Iterator
from errno import EFBIG, EINVAL, EIO, EISDIR, ELOOP, ENOENT, ENOTDIR
from functools import partial
from operator import itemgetter
from typing import BinaryIO, Final, TypeVar

import trio

from layerfs.api.facts import ImageEntry
from layerfs.catalog.known import KnownImages
from layerfs.needs import Need
from layerfs.oci import Image, Platform, Repository
from layerfs.store import ImageStorage
from layerfs.view.content import LayerTrees
from layerfs.view.inodes import InodeTable
from layerfs.view.nodes import Entries, FileContent, LongEntries, Node
from layerfs.view.rootfs import RootfsDirectory
from layerfs.view.virtual import MountContext

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Trail = list[tuple[bytes, Node]]

T = TypeVar("T")

MAX_LINKS: Final = 40
"""As the kernel (path_resolution(7))."""
_ROUNDS: Final = 100
"""How often what was fetched may be gone again before it is read."""
_PAGE: Final = 128
"""Entries that are looked at before others have a turn."""
_CHUNK: Final = 1 << 20


class ImageRoot:
    """One image's files. *obtain* has what is needed exist. For one thread, that of the loop."""

    def __init__(
        self,
        storage: ImageStorage,
        repository: Repository,
        image: Image,
        obtain: Callable[[Need], Awaitable[object]],
        lazy: Callable[[Repository], bool],
    ) -> None:
        inodes, platform = InodeTable(), Platform.of_this_machine()
        known = KnownImages(storage, platform)
        known.enter(repository, image.manifest.digest)
        known.prefer_stack(repository, image)
        context = MountContext(
            storage=storage, mountpoint=b"", platform=platform, inodes=inodes, known=known,
            trees=LayerTrees(inodes), tag_ttl=None, uid=0, gid=0, born_ns=0, lazy=lazy,
        )  # fmt: skip
        root = RootfsDirectory(0, context).lookup(image.view.short_id.encode("ascii"))
        assert root is not None, "it was entered"
        self._root: Node = root
        self._obtain = obtain

    async def stat(self, path: PathLike, *, follow: bool) -> ImageEntry:
        """Return what is at *path*. Raises OSError, LayerfsError."""
        trail = await self._find(path, follow=follow)
        return _entry(trail, self._node(trail))

    async def readlink(self, path: PathLike) -> str:
        """Return the target of a link. Raises OSError, LayerfsError."""
        node = self._node(await self._find(path, follow=False))
        if not stat.S_ISLNK(node.attributes().mode):
            raise _failed(EINVAL, path)
        return os.fsdecode(await self._ask(node.readlink, path))

    async def open(self, path: PathLike) -> BinaryIO:
        """Open a regular file for reading, once it is here. Raises OSError, LayerfsError."""
        trail = await self._find(path, follow=True)
        node = self._node(trail)
        mode = node.attributes().mode
        if not stat.S_ISREG(mode):
            raise _failed(EISDIR if stat.S_ISDIR(mode) else EINVAL, path)
        for _ in range(_ROUNDS):
            content = await self._ask(node.open, path)
            assert isinstance(content, FileContent), "what a layer has is on disk"
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                fd = os.open(content.path, flags, dir_fd=content.dir_fd)
            except FileNotFoundError:  # collected meanwhile: ask again
                continue
            return os.fdopen(fd, "rb")
        raise _failed(EIO, path)

    async def read_bytes(self, path: PathLike, *, limit: int | None) -> bytes:
        """Return what a file holds. Raises OSError, EFBIG for more than *limit* bytes; LayerfsError."""
        with await self.open(path) as file:
            size = os.fstat(file.fileno()).st_size
            if limit is not None and size > limit:
                raise _failed(EFBIG, path)
            if size <= _CHUNK:
                return file.read(size)
            return await trio.to_thread.run_sync(file.read, size)

    async def listdir(self, path: PathLike) -> list[str]:
        """Return the names in a directory, sorted. Raises OSError, LayerfsError."""
        node = self._node(await self._find(path, follow=True))
        names = sorted(name for name, _ in await self.entries(node, path))
        node.forgotten()
        return list(map(os.fsdecode, names))

    async def walk(self, path: PathLike) -> "Walk":
        """Begin at *path*. Raises OSError, LayerfsError."""
        trail = await self._find(path, follow=True)
        return Walk(self, _entry(trail, self._node(trail)), self._node(trail))

    async def entries(self, node: Node, path: PathLike) -> Iterator[tuple[bytes, Node]]:
        """Return what is in a directory, sorted unless it is too much for that. Raises OSError."""
        if not stat.S_ISDIR(node.attributes().mode):
            raise _failed(ENOTDIR, path)
        found: Entries | LongEntries = await self._ask(node.entries, path)
        return iter(found) if isinstance(found, LongEntries) else iter(sorted(found, key=itemgetter(0)))

    async def _find(self, path: PathLike, *, follow: bool) -> Trail:
        """Return the way from the root to what *path* means. Raises OSError, LayerfsError."""
        trail: Trail = []
        waiting = os.fsencode(path).split(b"/")[::-1]
        links = 0
        while waiting:
            name = waiting.pop()
            here = self._node(trail)
            if not stat.S_ISDIR(here.attributes().mode):
                raise _failed(ENOTDIR, path)
            if name in (b"", b"."):
                continue
            if name == b"..":
                del trail[-1:]
                continue
            node = await self._ask(partial(here.lookup, name), path)
            if node is None:
                raise _failed(ENOENT, path)
            if stat.S_ISLNK(node.attributes().mode) and (follow or waiting):
                links += 1
                if links > MAX_LINKS:
                    raise _failed(ELOOP, path)
                target = await self._ask(node.readlink, path)
                if target.startswith(b"/"):
                    trail.clear()
                waiting += target.split(b"/")[::-1]
            else:
                trail.append((name, node))
        return trail

    def _node(self, trail: Trail) -> Node:
        return trail[-1][1] if trail else self._root

    async def _ask(self, ask: Callable[[], T | Need], path: PathLike) -> T:
        """Return what *ask* answers once all is here that it needs."""
        for _ in range(_ROUNDS):
            try:
                found = ask()
            except OSError as exc:
                raise _failed(exc.errno or EIO, path) from exc
            if not isinstance(found, Need):
                return found
            await self._obtain(found)
        raise _failed(EIO, path)


class Walk:
    """A way through all that lies below a directory: depth first, a directory before what is in it."""

    def __init__(self, root: ImageRoot, entry: ImageEntry, node: Node) -> None:
        self._root = root
        self._first: tuple[ImageEntry, Node] | None = (entry, node)
        self._open: list[tuple[str, Node, Iterator[tuple[bytes, Node]]]] = []
        """Directories that are not yet at their end, the outermost first."""

    async def more(self) -> list[ImageEntry]:
        """Return some entries, none at the end. Raises OSError, LayerfsError."""
        page: list[ImageEntry] = []
        if self._first is not None:
            (entry, node), self._first = self._first, None
            page.append(entry)
            await self._enter(entry, node)
        while self._open and len(page) < _PAGE:
            path, directory, entries = self._open[-1]
            found = next(entries, None)
            if found is None:
                self._open.pop()
                directory.forgotten()  # or all of the image would stay in memory
                continue
            name, node = found
            entry = _described(f"{path}/{os.fsdecode(name)}", node)
            page.append(entry)
            await self._enter(entry, node)
        await trio.lowlevel.checkpoint()
        return page

    async def _enter(self, entry: ImageEntry, node: Node) -> None:
        if entry.is_dir:
            path = entry.path.rstrip("/")
            self._open.append((path, node, await self._root.entries(node, entry.path)))


def _entry(trail: Trail, node: Node) -> ImageEntry:
    return _described("/" + "/".join(os.fsdecode(name) for name, _ in trail), node)


def _described(path: str, node: Node) -> ImageEntry:
    found = node.attributes()
    return ImageEntry(
        path, found.mode, found.size, found.uid, found.gid, found.nlink, found.rdev, found.mtime_ns
    )


def _failed(number: int, path: PathLike) -> OSError:
    """Return the error that a system call would have, with the name that was asked for."""
    return OSError(number, os.strerror(number), os.fsdecode(path))
