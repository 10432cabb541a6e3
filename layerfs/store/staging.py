"""Trees on their way in: private directories, removed unless published."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from layerfs.host.allocation import spread_out
from layerfs.host.oserrors import disk_errors
from layerfs.layer.record import Identity
from layerfs.oci import Digest
from layerfs.store.layout import staged
from layerfs.store.locks import ByteLock, Locks
from layerfs.store.removal import remove_tree
from layerfs.store.soundness import identity_of

if TYPE_CHECKING:
    from tempfile import SpooledTemporaryFile

log = logging.getLogger(__name__)

_IN_MEMORY: Final = 64 << 10
_CHUNK: Final = 1 << 20


class StagedTables:
    """The tables of a record on their way in: in memory while they are small, else a file without a name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: SpooledTemporaryFile[bytes] | None = None

    def write(self, piece: bytes) -> None:
        """Append *piece*. Raises StoreFull, StoreError."""
        with disk_errors(f"{self._directory}: cannot write a record"):
            if self._file is None:
                from tempfile import SpooledTemporaryFile  # brings shutil and random

                self._file = SpooledTemporaryFile(_IN_MEMORY, dir=str(self._directory))  # noqa: SIM115 - see `close`
            self._file.write(piece)

    def read(self) -> Iterator[bytes]:
        """Yield all of it, piece by piece. Raises OSError."""
        if self._file is not None:
            self._file.seek(0)
            while piece := self._file.read(_CHUNK):
                yield piece

    def close(self) -> None:
        """Drop it; may be called more than once."""
        if self._file is not None:
            self._file.close()


class StagedTree:
    """A private directory that becomes a layer directory or a cover; removed unless published."""

    def __init__(self, digest: Digest, path: Path, lock: ByteLock, begun: int) -> None:
        self.digest = digest
        self.path = path
        self.begun = begun
        """What `layerfs.store.durability.Durability.began` said when this was begun."""
        self.tables = StagedTables(path.parent)
        """What the record of a layer will list."""
        self._lock = lock

    @property
    def identity(self) -> Identity:
        """What will tell the tree from a copy. Raises StoreError."""
        with disk_errors(f"{self.path}: cannot look at"):
            return identity_of(self.path)

    def empty(self) -> None:
        """Remove what is in it, for another attempt. Raises StoreError."""
        with disk_errors(f"{self.path}: cannot empty"):
            remove_tree(self.path)
            os.mkdir(self.path, 0o700)
        self.tables.close()
        self.tables = StagedTables(self.path.parent)

    def close(self) -> None:
        """Remove what is still under the staged name; harmless after publication or a second time."""
        self.tables.close()
        try:
            remove_tree(self.path)
        except OSError as exc:  # the sweeper tries again
            log.warning("%s: cannot be removed now: %s", self.path, exc)
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stage_tree(locks: Locks, directory: Path, digest: Digest, begun: int = 0) -> StagedTree:
    """Make a fresh private directory in *directory*. Raises StoreFull, StoreError."""
    path = staged(directory, digest.name, "extracting")
    lock = locks.take(path)
    try:
        spread_out(directory)
        with disk_errors(f"{path}: cannot create"):
            os.mkdir(path, 0o700)
    except BaseException:
        lock.release()
        raise
    return StagedTree(digest, path, lock, begun)
