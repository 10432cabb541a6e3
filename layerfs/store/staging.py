"""Trees on their way in: private directories, removed unless published."""

import logging
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from layerfs.host.oserrors import disk_errors
from layerfs.oci import Digest
from layerfs.store.layout import staged
from layerfs.store.locks import ByteLock, Locks
from layerfs.store.removal import remove_tree

log = logging.getLogger(__name__)


class StagedTree:
    """A private directory that becomes a layer directory or a cover; removed unless published."""

    def __init__(self, digest: Digest, path: Path, lock: ByteLock, begun: int) -> None:
        self.digest = digest
        self.path = path
        self.begun = begun
        """What `layerfs.store.durability.Durability.began` said when this was begun."""
        self._lock = lock

    def empty(self) -> None:
        """Remove what is in it, for another attempt. Raises StoreError."""
        with disk_errors(f"{self.path}: cannot empty"):
            remove_tree(self.path)
            os.mkdir(self.path, 0o700)

    def close(self) -> None:
        """Remove what is still under the staged name; harmless after publication or a second time."""
        try:
            remove_tree(self.path)
        except OSError as exc:  # the sweeper tries again
            log.warning("%s: cannot be removed now: %s", self.path, exc)
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def stage_tree(locks: Locks, directory: Path, digest: Digest, begun: int = 0) -> StagedTree:
    """Make a fresh private directory in *directory*. Raises StoreFull, StoreError."""
    path = staged(directory, digest.name, "extracting")
    lock = locks.take(path)
    try:
        with disk_errors(f"{path}: cannot create"):
            os.mkdir(path, 0o700)
    except BaseException:
        lock.release()
        raise
    return StagedTree(digest, path, lock, begun)
