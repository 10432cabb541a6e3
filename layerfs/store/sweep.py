"""Leftovers of processes that were killed: found by name, removed unless somebody holds them.

Decides by names, locks and age; never touches what is complete. Any number of sweepers, daemons and commands
may run on one store at once: each removal happens under the lock of what is removed.
"""

import logging
import os
import time
from collections.abc import Iterator
from errno import ENOTEMPTY
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from layerfs.errors import InvalidDigest, StoreError
from layerfs.oci import Digest
from layerfs.store.layout import StagedKind, StagedName, StoreLayout
from layerfs.store.locks import Locks
from layerfs.store.removal import remove_tree
from layerfs.store.removing import restore
from layerfs.store.trees import TreeShelf
from layerfs.store.usage import Usage, UsageCache

SUSPENDED_SECONDS: Final = 7 * 24 * 3600
"""How long a suspended download waits for its next attempt, counted from its last byte."""

_TAKEN_AWAY: Final = frozenset({"aside", "removing"})
_ATTEMPTS: Final = 5
_PAUSE_SECONDS: Final = 0.1

log = logging.getLogger(__name__)


class Swept(msgspec.Struct, frozen=True):
    """How much one sweep removed."""

    downloads: int = 0
    files: int = 0
    trees: int = 0
    """Staged and removed ones."""
    void: int = 0
    """Trees without a record that can be believed, records without a tree, objects of another boot."""

    @property
    def total(self) -> int:
        """Number of all removed things."""
        return self.downloads + self.files + self.trees + self.void


def sweep(
    layout: StoreLayout, locks: Locks, shelves: list[TreeShelf[Any]], mounts: UsageCache, max_age: float
) -> Swept:
    """Remove leftovers; suspended downloads once they are *max_age* seconds old. Raises StoreReadOnly.

    What cannot be removed is logged and left for the next sweep.
    """
    for directory in layout.directories:  # first: a tree that was set aside has its record still
        for path, name in _staged_in(directory, unnamed=directory == layout.refs):
            if name.kind == "aside":
                _restore(path, name, locks)
    void = sum(_sweep_void(shelf, locks) for shelf in shelves)
    removed = dict.fromkeys(get_args(StagedKind), 0)
    oldest = time.time() - max_age
    for directory in (layout.root, *layout.directories):
        found = list(_staged_in(directory, unnamed=directory == layout.refs))
        # After the listing: whoever mounted a tree before it was set aside is in this.
        usage = mounts.read(max_age=0) if any(name.kind in _TAKEN_AWAY for _, name in found) else Usage()
        for path, name in found:
            if _is_used(name, usage):
                log.info("%s: not swept: in use by a mount", path)
            elif _remove(path, name, locks, oldest):
                removed[name.kind] += 1
    return Swept(
        downloads=removed["downloading"] + removed["part"],
        files=removed["writing"],
        trees=removed["aside"] + removed["extracting"] + removed["removing"],
        void=void,
    )


def _restore(path: Path, name: StagedName, locks: Locks) -> None:
    """Give what a killed process set aside its name back, unless another has it by now."""
    lock = locks.name(path)
    if not lock.try_acquire():
        return
    try:
        if restore(path, name.stem, locks):
            log.info("%s: set aside by a process that was killed, put back", path)
    except (OSError, InvalidDigest) as exc:
        log.warning("%s: not put back: %s", path, exc)
    finally:
        lock.release()


def _sweep_void(shelf: TreeShelf[Any], locks: Locks) -> int:
    """Discard what is not complete and not being worked on."""
    trees, records = shelf.names()
    void = [digest for digest in trees | records if not (digest in trees and shelf.is_complete(digest))]
    return sum(_discard_void(shelf, locks, digest) for digest in void)


def _discard_void(shelf: TreeShelf[Any], locks: Locks, digest: Digest) -> bool:
    lock = locks.work(digest)
    if not lock.try_acquire():
        return False
    try:
        return shelf.discard_void(digest)
    except StoreError as exc:
        log.info("%s: not swept: %s", digest, exc)
        return False
    finally:
        lock.release()


def _staged_in(directory: Path, *, unnamed: bool) -> Iterator[tuple[Path, StagedName]]:
    """Yield what is staged in *directory*; with *unnamed* only what will have no name of its own there.

    Among refs a registry may be called like a staged name, but not begin with a dot (`layout.staged_ref`).
    """
    try:
        names = os.listdir(directory)
    except OSError as exc:
        log.info("%s: not swept: %s", directory, exc)
        return
    for name in names:
        staged = StagedName.parse(name)
        if staged is not None and not (unnamed and staged.stem):
            yield directory / name, staged


def _is_used(name: StagedName, usage: Usage) -> bool:
    """Say whether a tree set aside by a process that was killed just then may be under a mount."""
    if name.kind not in _TAKEN_AWAY:
        return False
    try:
        return usage.uses(Digest.from_name(name.stem))
    except InvalidDigest:
        return False


def _remove(path: Path, name: StagedName, locks: Locks, oldest: float) -> bool:
    """Remove one staged thing unless its owner lives or it may be resumed."""
    lock = locks.name(path)
    if not lock.try_acquire():
        return False
    try:
        if name.kind in ("aside", "extracting", "removing"):
            _remove_tree(path)
            return True
        if name.kind in ("downloading", "part") and _resumable(path, oldest):
            return False
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as exc:
        log.warning("%s: not swept: %s", path, exc)
        return False
    finally:
        lock.release()
    return True


def _remove_tree(path: Path) -> None:
    for _ in range(_ATTEMPTS - 1):
        try:
            return remove_tree(path)
        except OSError as exc:
            if exc.errno != ENOTEMPTY:
                raise
            time.sleep(_PAUSE_SECONDS)  # a worker whose daemon was killed ends in a moment
    return remove_tree(path)


def _resumable(path: Path, oldest: float) -> bool:
    status = os.lstat(path)
    # Two names: committed by a process that was killed before it could drop the first.
    return status.st_nlink == 1 and status.st_size > 0 and status.st_mtime > oldest
