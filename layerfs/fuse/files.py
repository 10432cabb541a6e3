"""Open files: bytes of small ones are given to the kernel at open, large ones are read from the disk at once.

A read may not wait (it has no caller that could be interrupted), but for a disk it does, in a thread.
"""

import logging
import os
from collections.abc import Coroutine
from contextlib import suppress
from errno import EAGAIN, EBADF, EOPNOTSUPP
from functools import cache
from itertools import count
from mmap import MADV_HUGEPAGE, MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any, Final

import pyfuse3
import trio
from pyfuse3 import FileInfo

from layerfs.fuse.prepared import prepared
from layerfs.host.mounts import filesystem_of
from layerfs.view.nodes import BytesContent, Content, FileContent, Node

log = logging.getLogger(__name__)

STORED_BYTES: Final = 64 * 1024
"""Files up to this size are put into the page cache at open, and the read request never comes."""

_PRIVATE: Final = 1 << 63
"""Handles from here on are one open of a file that changes; below are inode numbers, shared by all opens."""

MAX_READ_BYTES: Final = 1 << 20
"""What libfuse lets the kernel ask for at most; one room of this size serves all reads from memory, since a
fresh one would have to be zeroed each time."""

_HUGE_PAGE_BYTES: Final = 2 << 20

_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME
_DISK_THREADS: Final = 16
_MEMORY_FILESYSTEMS: Final = frozenset({b"tmpfs", b"ramfs"})


Bytes = bytes | memoryview


class _OpenFile:
    """One file with open handles; its descriptor is shared by them and opened by the first who needs it."""

    __slots__ = ("content", "fd", "info", "node", "opens")

    def __init__(self, node: Node, content: Content, info: FileInfo) -> None:
        self.node = node
        self.content = content
        self.info = info
        self.fd = -1
        self.opens = 1

    def descriptor(self) -> int:
        if self.fd < 0:
            assert isinstance(self.content, FileContent)
            try:
                self.fd = _open(self.content)
            except FileNotFoundError:  # a file of a lazy layer moves once that is whole
                content = self.node.open()
                if not isinstance(content, FileContent) or content == self.content:
                    raise
                self.content = content
                self.fd = _open(content)
        return self.fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _open(content: FileContent) -> int:
    try:
        return os.open(content.path, _OPEN_FLAGS, dir_fd=content.dir_fd)
    except PermissionError:  # O_NOATIME is for the owner
        return os.open(content.path, _OPEN_FLAGS & ~os.O_NOATIME, dir_fd=content.dir_fd)


def _room() -> memoryview:
    """Return room for one read, in huge pages if there are any: the kernel finds its pages one by one.

    In small pages, not even aligned, a reply of 1 MiB costs a quarter more. Wherever three huge pages' worth
    of addresses start, the middle third lies in whole huge pages; the rest is never touched.
    """
    addresses = mmap(-1, 3 * _HUGE_PAGE_BYTES, MAP_PRIVATE | MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        addresses.madvise(MADV_HUGEPAGE)
    return memoryview(addresses)[_HUGE_PAGE_BYTES : _HUGE_PAGE_BYTES + MAX_READ_BYTES]


class OpenFiles:
    """The handle table of one mount."""

    def __init__(self) -> None:
        self._files: dict[int, _OpenFile] = {}
        self._handles = count(_PRIVATE)
        self._disk = trio.CapacityLimiter(_DISK_THREADS)
        self._room = _room()
        self._in_memory: set[int] = set()
        """Directories whose filesystem never waits for a disk, but cannot promise so at a read."""

    def __len__(self) -> int:
        """Return how many files are open, those with a shared handle once."""
        return len(self._files)

    def is_open(self, node: Node) -> bool:
        """Say whether *node* is open, with a handle that is shared."""
        return node.ino in self._files

    def reopen(self, node: Node) -> FileInfo | None:
        """Open a file that is open already, without asking its node again; None if it is not."""
        file = self._files.get(node.ino)
        if file is None:
            return None
        file.opens += 1
        return file.info

    def open(self, node: Node, content: Content) -> FileInfo:
        """Open *node*, which has *content*. Raises OSError."""
        kept = prepared(node)
        if kept is None:
            # Direct: the size that the kernel saw may be another one than that of these bytes.
            info = FileInfo(fh=next(self._handles), direct_io=True, keep_cache=False)
        elif (info_again := self.reopen(node)) is not None:
            return info_again  # somebody else waited for it, too
        else:
            info = kept.file or FileInfo(fh=node.ino, keep_cache=True)
            kept.file = info
        file = _OpenFile(node, content, info)
        if kept is not None and not kept.stored and _size_of(content) <= STORED_BYTES:
            # Before the first reply to an open of this inode, and never again: a page with a pending
            # READ is locked, and storing into it would wait for a reply that only we can give.
            kept.stored = True
            try:
                self._store(node.ino, file)
            except OSError:  # told: there is no reply to this open
                kept.stored = False
                raise
        elif type(content) is FileContent and content.size > STORED_BYTES:
            file.descriptor()  # it will be read, so what is wrong with it is told at open
        self._files[info.fh] = file
        return info

    def _store(self, ino: int, file: _OpenFile) -> None:
        """Put a small file into the page cache, if its bytes are in memory; reading works without, too."""
        content = file.content
        data: Bytes | None
        if isinstance(content, BytesContent):
            data = content.data
        elif content.size > 0:
            data = self._read_now(file, content, content.size, 0)
            if data is None or len(data) != content.size:
                return  # the READ that comes then takes it from the disk, in a thread
            file.close()
        else:
            return
        if data:
            try:
                pyfuse3.notify_store(ino, 0, data)  # type: ignore[arg-type]  # any buffer will do
            except OSError as error:
                log.debug("inode %d: not put into the page cache: %s", ino, error)

    def read(self, handle: int, offset: int, size: int) -> Bytes | Coroutine[Any, Any, Bytes]:
        """Return *size* bytes at *offset*, fewer only at the end of the file. Raises OSError.

        The bytes are good until the next checkpoint: pyfuse3 hands them to the kernel before.
        """
        file = self._files.get(handle)
        if file is None:
            raise OSError(EBADF, f"handle {handle} is not open")
        content = file.content
        if isinstance(content, BytesContent):
            return memoryview(content.data)[offset : offset + size]
        data = self._read_now(file, content, size, offset) if size <= MAX_READ_BYTES else None
        if data is not None and (len(data) == size or offset + len(data) >= content.size):
            return data
        # The kernel releases a file only after the replies to its reads, so the descriptor stays open.
        return trio.to_thread.run_sync(_read_all, file.descriptor(), size, offset, limiter=self._disk)

    def _read_now(self, file: _OpenFile, content: FileContent, size: int, offset: int) -> memoryview | None:
        """Read what is in memory, over what was read before; None if nothing is there, or nobody knows."""
        fd = file.descriptor()
        room = self._room[:size]
        if content.dir_fd in self._in_memory:
            return room[: os.preadv(fd, [room], offset)]
        try:
            return room[: os.preadv(fd, [room], offset, os.RWF_NOWAIT)]
        except OSError as error:
            if error.errno not in (EAGAIN, EOPNOTSUPP):
                raise
            if error.errno == EOPNOTSUPP and _is_in_memory(os.fstat(fd).st_dev):
                self._in_memory.add(content.dir_fd)
                return self._read_now(file, content, size, offset)
            return None

    def release(self, handle: int) -> None:
        """Take back one open of *handle*; an unknown one is logged."""
        file = self._files.get(handle)
        if file is None:
            log.warning("handle %d: released, but not open", handle)
            return
        file.opens -= 1
        if file.opens == 0:
            del self._files[handle]
            file.close()

    def close(self) -> None:
        """Close everything; the mount is gone."""
        for file in self._files.values():
            file.close()
        self._files.clear()


@cache
def _is_in_memory(device: int) -> bool:
    """Say whether reading from this filesystem can never wait for a disk, though it cannot promise so."""
    return filesystem_of(device) in _MEMORY_FILESYSTEMS


def _size_of(content: Content) -> int:
    return content.size if isinstance(content, FileContent) else len(content.data)


def _read_all(fd: int, size: int, offset: int) -> bytes:
    """Read until *size* bytes are there or the file ends: a short reply means its end to the kernel."""
    parts = []
    while size > 0:
        part = os.pread(fd, size, offset)
        if not part:
            break
        parts.append(part)
        size -= len(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
