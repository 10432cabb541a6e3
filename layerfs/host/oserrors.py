"""Which error of layerfs a failed system call is: one table for everything that works on this machine's disk.

The store, the writer of trees and whatever inflates an archive say `store_error`; a file that the user named
and layerfs only reads is another matter, which `source_error` decides.
"""

import contextlib
from collections.abc import Iterator
from errno import EACCES, EDQUOT, EISDIR, ELOOP, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS
from pathlib import Path
from typing import Final

from layerfs.errors import (
    Denied,
    InvalidArchive,
    LayerfsError,
    NotFound,
    StoreError,
    StoreFull,
    StoreReadOnly,
)

_OF_THE_STORE: Final[dict[int | None, type[StoreError]]] = {
    ENOSPC: StoreFull,
    EDQUOT: StoreFull,
    EROFS: StoreReadOnly,
    EACCES: StoreReadOnly,
    EPERM: StoreReadOnly,
}
"""errno to class; whatever is not here is a plain StoreError."""

_OF_A_SOURCE: Final[dict[int | None, tuple[type[LayerfsError], str]]] = {
    ENOENT: (NotFound, ""),
    ENOTDIR: (NotFound, ""),
    EACCES: (Denied, ""),
    EPERM: (Denied, ""),
    EISDIR: (InvalidArchive, " (expected a file)"),
    ELOOP: (InvalidArchive, " (expected a file)"),
}
"""errno to class and advice; whatever is not here is judged like the store's own disk."""


def store_error(exc: OSError, what: str) -> StoreError:
    """Return the StoreError that *exc* means while *what* was being done."""
    return _OF_THE_STORE.get(exc.errno, StoreError)(f"{what}: {exc.strerror or exc}")


def source_error(exc: OSError, path: Path) -> LayerfsError:
    """Return what *exc* means for a caller who named *path* as the source of an image."""
    if exc.errno not in _OF_A_SOURCE:
        return store_error(exc, str(path))
    kind, advice = _OF_A_SOURCE[exc.errno]
    return kind(f"{path}: {exc.strerror}{advice}")


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn an OSError of the block into a StoreError that begins with *what*."""
    try:
        yield
    except OSError as exc:
        raise store_error(exc, what) from exc
