"""The filesystem below a store: when what was written to it is on its disk, and what it could not write.

syncfs(2) reports that writing back failed once to each descriptor that was open by then (Linux 5.8), and the
kernel forgets what it could not write: a later success says nothing of that. So `Filesystem` takes its
descriptor before the first tree is begun, or met, and counts. Called by `trees`, `durable` and `storage`;
knows none of them.
"""

import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EBADF, EINTR, ENOSYS, EPERM
from pathlib import Path
from typing import Final

from layerfs import host
from layerfs.errors import StoreError
from layerfs.host.oserrors import disk_errors, store_error

_NOT_TRIED: Final = frozenset({EACCES, EBADF, EINTR, ENOSYS, EPERM})
"""What syncfs says when it was not let; with anything else it has reported a loss, and will not again."""
_PERIOD: Final = 0.1
_LEAST: Final = 16 << 20


class Filesystem:
    """Syncs the filesystem of *directory*; holds none to which nothing is written. Thread-safe."""

    def __init__(self, directory: Path, *, readonly: bool) -> None:
        self._directory = directory
        self._readonly = readonly
        self._opening = threading.Lock()
        self._syncing = threading.Lock()
        self._fd: int | None = None
        self._closing: weakref.finalize[[int], Filesystem] | None = None
        self.losses = 0
        """How often something was lost that should have been written, since the first `watch`."""

    def watch(self) -> int:
        """Return `losses`; from now on none is missed. Raises StoreError."""
        with self._opening:
            if self._fd is None and not self._readonly:
                self._fd = _open(self._directory)
                self._closing = weakref.finalize(self, os.close, self._fd)
        return self.losses

    def close(self) -> None:
        """Let go of the filesystem, so that it can be unmounted, and watch no more until the next `watch`."""
        with self._opening, self._syncing:
            if self._closing is not None:
                self._closing()
            self._fd = self._closing = None

    def sync(self) -> None:
        """Write everything to the disk. Raises StoreFull, StoreError; what was lost has been counted then."""
        self.watch()
        with self._syncing:
            if self._fd is None:
                raise StoreError(f"{self._directory}: closed or read-only (expected a store to write to)")
            try:
                host.syncfs(self._fd)
            except OSError as exc:
                self.losses += exc.errno not in _NOT_TRIED
                raise store_error(exc, f"{self._directory}: syncfs") from exc


@contextmanager
def writing_back(directory: Path) -> Iterator[None]:
    """Have what the block writes go to the disk early, in a thread, for who will wait until it is there.

    Syncs now and then, after 16 MiB or more; whoever does not wait is better off without, because it takes
    processor time from those who write.
    """
    left = threading.Event()
    thread = threading.Thread(target=_write_back, args=(directory, left), name="write-back", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
    thread.join()  # not after a failure: nobody waits for the disk then


def _write_back(directory: Path, left: threading.Event) -> None:
    with suppress(OSError, StoreError):  # `Filesystem.sync` reports what fails
        fd = _open(directory)
        try:
            _sync_now_and_then(fd, left)
        finally:
            os.close(fd)


def _sync_now_and_then(fd: int, left: threading.Event) -> None:
    before = _free(fd)
    pause = _PERIOD
    while not left.wait(pause):
        free = _free(fd)
        before = max(before, free)
        if before - free >= _LEAST:
            start = time.monotonic()
            host.syncfs(fd)
            pause = max(_PERIOD, time.monotonic() - start)  # others use this disk too
            before = _free(fd)


def _open(directory: Path) -> int:
    with disk_errors(f"{directory}: cannot open"):
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _free(fd: int) -> int:
    """Return the free bytes, without those that are promised to what is not written yet."""
    status = os.fstatvfs(fd)
    return status.f_bfree * status.f_frsize
