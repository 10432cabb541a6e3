"""Durability: which trees of a store are on its disk, and which of them the disk has lost something of.

Blobs, documents and records are durable when the call that writes them returns: fsync, rename, fsync of the
directory. A tree of a hundred thousand files cannot wait like this. It is published at once, with a record
that says ``pending`` and in which boot; one syncfs(2) for all pending trees then lets the records say
``durable`` (`layerfs.store.records` says what a record is worth until then).

syncfs reports that writing back failed once to each descriptor that was open by then (Linux 5.8). The kernel
drops the pages that it could not write, so a later success says nothing of them. Hence three rules:

1. The descriptor is opened before the first tree is begun, or met (`Durability.began`); from then on each
   report of a loss is counted.
2. A pending tree is remembered with the count at its beginning. Nobody can tell which tree a loss has hit.
3. Only a tree whose count is the present one may be called durable. Any other is withdrawn, and made anew by
   whoever needs it.
"""

import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EACCES, EBADF, EINTR, ENOSYS, EPERM
from pathlib import Path
from typing import Final, Protocol

import msgspec

from layerfs import host
from layerfs.errors import StoreError
from layerfs.host.oserrors import disk_errors, store_error
from layerfs.oci import Digest

_NO_SYNC: Final = frozenset({EACCES, EBADF, EINTR, ENOSYS, EPERM})
"""Errors of a syncfs that was refused or interrupted; any other reports a loss, and will not again."""
_WRITE_BACK_PAUSE: Final = 0.1
"""Seconds."""
_WRITE_BACK_LEAST: Final = 16 << 20
"""Bytes."""

log = logging.getLogger(__name__)


class TreeIdentity(msgspec.Struct, frozen=True):
    """What tells a tree from another that was published under the same digest."""

    record_inode: int
    tree_inode: int


class PendingTrees(Protocol):
    """A shelf of trees, as far as durability needs it."""

    @property
    def directory(self) -> Path:
        """The directory of the trees."""

    def identify(self, digest: Digest) -> TreeIdentity | None:
        """Return the identity of the tree of *digest*; None if tree or record is missing."""

    def mark_durable(self, digest: Digest, identity: TreeIdentity) -> bool:
        """Let the record say ``durable``; False if the tree is another by now. Raises StoreError."""

    def withdraw(self, digest: Digest, identity: TreeIdentity) -> None:
        """Take away the tree unless it is durable, or another by now; its record at the least.

        Calls `Durability.forget` if the record is gone. Raises StoreError.
        """


class _Pending(msgspec.Struct, frozen=True):
    """A tree that a loss of power would take."""

    trees: PendingTrees
    digest: Digest
    identity: TreeIdentity
    begun: int
    """How many losses were counted when the tree was begun, or met."""


class Durability:
    """The disk below a store in *root*. Holds a descriptor only once a tree is begun. Thread-safe."""

    def __init__(self, root: Path, *, readonly: bool) -> None:
        self._root = root
        self._readonly = readonly
        self._opening = threading.Lock()
        self._syncing = threading.Lock()
        self._fd: int | None = None
        self._closing: weakref.finalize[[int], Durability] | None = None
        self._losses = 0
        """How often the disk has reported a loss since `began` was first called."""
        self._pending: dict[tuple[Path, Digest], int] = {}
        """The trees that are not durable yet, each with the losses counted when it was begun, or met."""
        # By directory, not by shelf: shelves refer to this object, and in a circle its descriptor would stay.

    def began(self) -> int:
        """Say that a tree is begun; returns what `published` wants to know. Raises StoreError."""
        with self._opening:
            if self._fd is None and not self._readonly:
                self._fd = _open(self._root)
                self._closing = weakref.finalize(self, os.close, self._fd)
        return self._losses

    def refuse_lost(self, what: Digest | str, begun: int) -> None:
        """Raise StoreError if the disk has lost something since `began` returned *begun*."""
        if begun != self._losses:
            raise StoreError(
                f"{what}: the disk lost something that was written meanwhile (expected a sound one)"
            )

    def published(self, directory: Path, digest: Digest, begun: int) -> None:
        """Remember a tree that this process published."""
        self._pending[directory, digest] = begun

    def met(self, directory: Path, digest: Digest) -> None:
        """Remember a pending tree of another process; what the disk lost before this, nobody can tell."""
        if (directory, digest) not in self._pending:
            with suppress(StoreError):  # the tree stays pending, which is safe
                self._pending[directory, digest] = self.began()

    def forget(self, directory: Path, digest: Digest) -> None:
        """Forget a tree that is durable or gone."""
        self._pending.pop((directory, digest), None)

    def make_durable(self, shelves: Sequence[PendingTrees]) -> int:
        """Have all pending trees of *shelves* on the disk, and their records say so.

        Returns how many they were. Trees that were begun before the disk lost something are withdrawn
        instead. Raises StoreError.
        """
        pending = self._identified(shelves)
        if self._readonly or not pending:
            return 0
        try:
            self._sync()
        finally:
            for tree in self._identified(shelves):  # anew: some were published meanwhile
                if tree.begun != self._losses:
                    _withdraw(tree)
        return sum(self._mark_durable(tree) for tree in pending if tree.begun == self._losses)

    def sync(self) -> int:
        """Write everything to the disk; return how many losses are counted by then.

        Raises StoreFull, StoreError; a loss has been counted then.
        """
        self._sync()
        return self._losses

    def close(self) -> None:
        """Let go of the disk, so that it can be unmounted; until `began` is called losses are missed."""
        with self._opening, self._syncing:
            if self._closing is not None:
                self._closing()
            self._fd = self._closing = None

    def _identified(self, shelves: Sequence[PendingTrees]) -> list[_Pending]:
        found = []
        for (directory, digest), begun in list(self._pending.items()):
            trees = next(trees for trees in shelves if trees.directory == directory)
            identity = trees.identify(digest)
            if identity is not None:
                found.append(_Pending(trees, digest, identity, begun))
        return found

    def _mark_durable(self, tree: _Pending) -> bool:
        marked = tree.trees.mark_durable(tree.digest, tree.identity)
        if marked:
            self.forget(tree.trees.directory, tree.digest)
        return marked

    def _sync(self) -> None:
        """Write everything to the disk. Raises StoreFull, StoreError; a loss has been counted then."""
        self.began()
        with self._syncing:
            if self._fd is None:
                raise StoreError(f"{self._root}: closed meanwhile (expected a store to write to)")
            try:
                host.syncfs(self._fd)
            except OSError as exc:
                self._losses += exc.errno not in _NO_SYNC
                raise store_error(exc, f"{self._root}: syncfs") from exc


def _withdraw(tree: _Pending) -> None:
    try:
        tree.trees.withdraw(tree.digest, tree.identity)
    except StoreError as exc:  # the next call tries again
        log.warning("%s: what the disk may have lost of it cannot be taken away now: %s", tree.digest, exc)


@contextmanager
def writing_back(directory: Path) -> Iterator[None]:
    """Have a thread write back what the block writes, so that the sync at the end has little left to do.

    The thread syncs after 16 MiB or more, at most half of the time. It takes processor time from the block:
    a caller who does not wait for the disk at the end is faster without.
    """
    left = threading.Event()
    thread = threading.Thread(target=_write_back, args=(directory, left), name="write-back", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
    thread.join()  # not after a failure: then nobody waits for the disk


def _write_back(directory: Path, left: threading.Event) -> None:
    with suppress(OSError, StoreError):  # `Durability` reports what fails
        fd = _open(directory)
        try:
            _sync_now_and_then(fd, left)
        finally:
            os.close(fd)


def _sync_now_and_then(fd: int, left: threading.Event) -> None:
    before = _free(fd)
    pause = _WRITE_BACK_PAUSE
    while not left.wait(pause):
        free = _free(fd)
        before = max(before, free)
        if before - free >= _WRITE_BACK_LEAST:
            start = time.monotonic()
            host.syncfs(fd)
            pause = max(_WRITE_BACK_PAUSE, time.monotonic() - start)  # others use this disk too
            before = _free(fd)


def _open(directory: Path) -> int:
    with disk_errors(f"{directory}: cannot open"):
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _free(fd: int) -> int:
    """Return the free bytes, without those that are promised to what is not written yet."""
    status = os.fstatvfs(fd)
    return status.f_bfree * status.f_frsize
