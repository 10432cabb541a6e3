"""Objects: files of lazy layers by their content, each verified before it has its name.

``objects/<2 characters>/<20>``: both together are the id. Shared by all layers that have a file of this
content; owner, mode and times are the stub's (`layerfs.extract.stubs`).

Nothing is synced: to write back each of 60,000 files would take minutes, and what a loss of power takes can
be fetched again. But half a file must not have a name after one. So each object says by the nanoseconds of
its mtime what it is worth: 0, and the disk has all of it; a number that the boot gave, and it is whole as
long as the boot lasts; anything else is void, and replaced. `make_durable` turns the second kind into the
first after one syncfs(2). The attributes of an inode reach the disk no later than its new name: both are in
one journal. The seconds are when the object was last used.
"""

import contextlib
import hashlib
import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from layerfs import host
from layerfs.errors import StoreError
from layerfs.host.oserrors import disk_errors
from layerfs.layer.overlayfs import object_path
from layerfs.layer.toc import Content
from layerfs.store.disk import FILE_MODE, make_directories, unlink
from layerfs.store.durability import Durability
from layerfs.store.layout import staged
from layerfs.store.locks import Locks
from layerfs.store.newobjects import StagedObject, StoredObject
from layerfs.store.xattrs import read_one, xattr

_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_SECOND: Final = 10**9
_DURABLE: Final = 0
_LOOKED: Final = "user.layerfs.boot"
"""The attribute of the directory that names the boot in which void objects were removed from it."""
LAST_USE_SECONDS: Final = 3600
"""How exact the last use of an object has to be."""

log = logging.getLogger(__name__)


class _Pending(msgspec.Struct, frozen=True):
    """An object that a loss of power would take."""

    inode: int
    begun: int
    """How many losses of the disk were counted when it was begun, or met (`layerfs.store.durability`)."""


class ObjectShelf:
    """All objects of one store. Thread-safe."""

    def __init__(self, directory: Path, locks: Locks, durability: Durability) -> None:
        self.directory = directory
        self._prefix = f"{directory}/"
        self._locks = locks
        self._durability = durability
        self._boot = _boot_number()
        self._pending: dict[str, _Pending] = {}

    def find(self, id_: str) -> StoredObject | None:
        """Return the object *id_*, None if it is not there. Costs one lstat."""
        path = self._prefix + object_path(id_)
        try:
            status = os.lstat(path)
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode) or not self._is_whole(status):
            return None
        self._note_use(id_, path, status)
        return StoredObject(id_, Path(path), status.st_size)

    def has(self, id_: str) -> bool:
        """Say whether `find` would find it; that is no use of it."""
        try:
            status = os.lstat(self._prefix + object_path(id_))
        except OSError:
            return False
        return not self.is_void(status)

    def stage(self, content: Content) -> StagedObject:
        """Begin to write the bytes of *content*. Raises StoreFull, StoreReadOnly, StoreError."""
        id_ = content.id
        path = staged(self.directory, id_, "writing")
        lock = self._locks.take(path)
        try:
            begun = self._durability.began()
            with disk_errors(f"{path}: cannot create"):
                fd = os.open(path, _NEW, FILE_MODE)
        except BaseException:
            lock.release()
            raise
        return StagedObject(self.publish, id_, content, path, fd, lock, begun)

    def publish(self, one: StagedObject) -> StoredObject:
        """Give verified bytes their final name; losing a race is success. For `StagedObject.commit`."""
        final = self.directory / object_path(one.id)
        self._durability.refuse_lost(f"object {one.id}", one.begun)
        with disk_errors(f"{final}: cannot publish"):
            os.fchmod(one.fd, FILE_MODE)
            os.utime(one.fd, ns=_times(self._boot))
            try:
                os.rename(one.path, final)
            except FileNotFoundError:
                make_directories(final.parent, stat.S_IMODE(os.stat(self.directory).st_mode))
                os.rename(one.path, final)
            self._pending[one.id] = _Pending(os.fstat(one.fd).st_ino, one.begun)
        return StoredObject(one.id, final, one.content.size)

    def discard(self, id_: str) -> bool:
        """Remove an object; True if there was one. Raises StoreReadOnly, StoreError."""
        self._pending.pop(id_, None)
        return unlink(self.directory / object_path(id_))

    def all(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the id and the status of each object, void ones too, in no order. Raises OSError."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory) as directories:
            for directory in directories:
                if len(directory.name) != 2 or not directory.is_dir(follow_symlinks=False):
                    continue
                with os.scandir(directory.path) as found:
                    for entry in found:
                        with contextlib.suppress(FileNotFoundError):
                            yield directory.name + entry.name, entry.stat(follow_symlinks=False)

    def is_void(self, status: os.stat_result) -> bool:
        """Say whether a loss of power may have taken a part of what has this *status*."""
        return not stat.S_ISREG(status.st_mode) or not self._is_whole(status)

    def remove_void(self) -> int:
        """Remove what a loss of power left, once a boot; return how much it was. Raises StoreError.

        For who has the kernel read objects by itself, and for sweepers: `find` shows no void one.
        """
        boot = host.boot_id().encode("ascii")
        directory, removed = os.fsencode(self.directory), 0
        with disk_errors(f"{self.directory}: cannot be looked through"):
            if not self.directory.is_dir() or read_one(directory, _LOOKED) == boot:
                return 0
            for id_, status in self.all():
                removed += self.is_void(status) and self.discard(id_)
            with contextlib.suppress(OSError):  # then the next one looks again
                xattr.setxattr(os.fspath(self.directory), _LOOKED, boot)
        return removed

    def make_durable(self) -> int:
        """Write all pending objects to the disk, and have them say so; return how many they are.

        What was begun before the disk lost something is removed. Raises StoreError.
        """
        pending, self._pending = self._pending, {}
        if not pending:
            return 0
        try:
            losses = self._durability.sync()
        except StoreError:
            losses = self._durability.began()
            self._pending = {id_: one for id_, one in pending.items() if one.begun == losses} | self._pending
            self._withdraw(pending, losses)
            raise
        self._withdraw(pending, losses)
        return sum(self._mark_durable(id_, one) for id_, one in pending.items() if one.begun == losses)

    def _is_whole(self, status: os.stat_result) -> bool:
        return status.st_mtime_ns % _SECOND in (_DURABLE, self._boot)

    def _note_use(self, id_: str, path: str, status: os.stat_result) -> None:
        """Take in a pending object of another process, and when this one is used."""
        mark = status.st_mtime_ns % _SECOND
        if mark == self._boot and id_ not in self._pending:
            with contextlib.suppress(StoreError):  # it stays pending, which is safe
                self._pending[id_] = _Pending(status.st_ino, self._durability.began())
        if time.time() - status.st_mtime > LAST_USE_SECONDS:
            with contextlib.suppress(OSError):  # a store that may only be read has no last use
                _mark(path, status.st_ino, mark, mark)

    def _withdraw(self, pending: dict[str, _Pending], losses: int) -> None:
        for id_, one in pending.items():
            if one.begun != losses:
                with contextlib.suppress(StoreError):
                    self.discard(id_)

    def _mark_durable(self, id_: str, pending: _Pending) -> bool:
        path = self._prefix + object_path(id_)
        with disk_errors(f"{path}: cannot mark"), contextlib.suppress(FileNotFoundError):  # removed meanwhile
            return _mark(path, pending.inode, self._boot, _DURABLE)
        return False


def _mark(path: str, inode: int, found: int, wanted: int) -> bool:
    """Have an object say *wanted*, and that it was used now, if it is that with *inode* and says *found*."""
    fd = os.open(path, _OPEN)
    try:
        status = os.fstat(fd)
        if status.st_ino != inode or status.st_mtime_ns % _SECOND != found:
            return False
        os.utime(fd, ns=_times(wanted))
        return True
    finally:
        os.close(fd)


def _boot_number() -> int:
    """Return the number of this boot, of which all but a billionth of the others have another; never 0."""
    return int.from_bytes(hashlib.sha256(host.boot_id().encode()).digest()[:8], "big") % (_SECOND - 1) + 1


def _times(mark: int) -> tuple[int, int]:
    now = time.time_ns() // _SECOND * _SECOND
    return now, now + mark
