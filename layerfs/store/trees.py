"""Published trees with their records: layer directories, and covers. Complete or absent, at any moment.

Order of publication: an invalid tree out of the way, the record, then one rename of the tree. Order of
removal: the tree aside, then the record. So at any kill a tree has its record, and a record without a tree
means nothing. The data of a tree is durable later: `layerfs.store.durability`.
"""

import contextlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Generic

import msgspec

from layerfs import host
from layerfs.errors import InvalidDigest, StoreDamaged, StoreError
from layerfs.host.oserrors import disk_errors
from layerfs.oci import Digest
from layerfs.store.disk import opened_file, sync_directory, write_durably
from layerfs.store.durability import Durability, TreeIdentity
from layerfs.store.layout import RECORD_SUFFIX, staged
from layerfs.store.locks import Locks
from layerfs.store.records import Record, after_head, decode_record, encode_record, read_head, vouches
from layerfs.store.soundness import TreeJudge
from layerfs.store.staging import StagedTree, stage_tree

log = logging.getLogger(__name__)

InUse = Callable[[Digest, float], bool]
"""Whether a mount uses a tree, as it was known at most so many seconds ago."""

_RECENT: Final = 1.0
_NOW: Final = 0.0
_CACHED: Final = 8192
"""Records kept in memory, without their tables: most are below 1 KiB."""

_LAST_USE_SECONDS: Final = 3600
"""How exact the last use, the mtime of a record, has to be."""


_Seen = tuple[int, int]
"""Inode and change time of a tree. A number is given again, and a published tree changes no more."""


class PublishedTree(msgspec.Struct, Generic[Record], frozen=True):
    """A complete tree and what is known of it."""

    path: Path
    record: Record


class TreeShelf(Generic[Record]):
    """All trees of one kind: ``<directory>/<digest name>`` and ``<digest name>.json``. Thread-safe."""

    def __init__(
        self,
        directory: Path,
        record_type: type[Record],
        locks: Locks,
        durability: Durability,
        in_use: InUse,
        judge: TreeJudge,
    ) -> None:
        self._directory = directory
        self._prefix = f"{directory}/"
        self._type: type[Record] = record_type
        self._locks = locks
        self._durability = durability
        self._in_use = in_use
        self._judge = judge
        self._boot_id = host.boot_id()
        self._known: dict[Digest, tuple[_Seen, PublishedTree[Record]]] = {}

    @property
    def directory(self) -> Path:
        """Where the trees are."""
        return self._directory

    def find(self, digest: Digest) -> PublishedTree[Record] | None:
        """Return the complete tree of *digest*, None if it is not there. Costs one lstat when known."""
        path = f"{self._prefix}{digest.algorithm}-{digest.hex}"
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            self._known.pop(digest, None)
            return None
        except OSError as exc:
            log.warning("%s: %s (treated as absent)", path, exc)
            return None
        known = self._known.get(digest)
        if known is not None and known[0] == _seen(status):
            return known[1]
        return self._look(digest, Path(path), status)

    def is_complete(self, digest: Digest) -> bool:
        """Say whether `find` would find it, but remember nothing."""
        path = self._directory / digest.name
        try:
            status = os.lstat(path)
        except OSError:
            return False
        return self._sound_record(digest, path, status) is not None

    def stage(self, digest: Digest) -> StagedTree:
        """Make a private directory for the tree of *digest*. Raises StoreFull, StoreReadOnly, StoreError."""
        return stage_tree(self._locks, self._directory, digest, self._durability.began())

    def publish(self, tree: StagedTree, record: Record) -> PublishedTree[Record]:
        """Give *tree* its final name, with *record*. If another was first, return that one; both are success.

        Raises StoreFull, StoreReadOnly, StoreError, also if the disk lost something since *tree* was begun;
        StoreDamaged if something unknown stands in the way.
        """
        digest = tree.digest
        self._durability.refuse_lost(digest, tree.begun)
        with self._locks.publication(digest):
            present = self.find(digest)
            if present is not None:
                log.debug("%s: published by another thread or process", digest)
                return present
            with disk_errors(f"{self._directory / digest.name}: cannot publish"):
                self._set_aside(digest, _RECENT)
                self._write_record(digest, record, tree.tables.read())
                os.rename(tree.path, self._directory / digest.name)
        self._durability.published(self._directory, digest, tree.begun)
        return PublishedTree(self._directory / digest.name, record)

    def discard(self, digest: Digest) -> bool:
        """Take tree and record of *digest* away; the sweeper deletes the files. True if there was a tree.

        Raises StoreError if a mount uses the tree.
        """
        with self._locks.publication(digest):
            return self._take_away(digest, _NOW)

    def discard_void(self, digest: Digest) -> bool:
        """Take away what is left of *digest* unless it is complete; True if there was something to take.

        Raises StoreError as `discard` does.
        """
        with self._locks.publication(digest):
            if self.find(digest) is not None:
                return False
            had_record = self.record_path(digest).exists()
            # Void trees are shown to nobody, so the second look at the mounts need not be fresh.
            return self._take_away(digest, _RECENT) or had_record

    def problem(self, digest: Digest) -> str | None:
        """Say what is wrong with a tree that has a record and is not used; None if nothing is known."""
        path, record = self._directory / digest.name, self.read_record(digest)
        return self._judge.problem(path, record) if record is not None and path.is_dir() else None

    def forget(self, digests: Iterable[Digest]) -> None:
        """Drop the records of trees that were set aside. Raises StoreError."""
        gone = list(digests)
        with disk_errors(f"{self._directory}: cannot remove"):
            for digest in gone:
                self._known.pop(digest, None)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.record_path(digest))
            if gone:  # durable before the trees are emptied: no power cut may bring a record back
                sync_directory(self._directory)
        for digest in gone:
            self._durability.forget(self._directory, digest)

    def names(self) -> tuple[set[Digest], set[Digest]]:
        """List the digests that have a tree, and those that have a record. Raises OSError."""
        trees: set[Digest] = set()
        records: set[Digest] = set()
        for name in os.listdir(self._directory):
            group = records if name.endswith(RECORD_SUFFIX) else trees
            with contextlib.suppress(InvalidDigest):
                group.add(Digest.from_name(name.removesuffix(RECORD_SUFFIX)))
        return trees, records

    def record_path(self, digest: Digest) -> Path:
        """Path of the record of *digest*."""
        return self._directory / f"{digest.name}{RECORD_SUFFIX}"

    def read_record(self, digest: Digest) -> Record | None:
        """Return the record of *digest* if it can be believed, tree or no tree."""
        try:
            with opened_file(f"{self._prefix}{digest.name}{RECORD_SUFFIX}") as file:
                raw = None if file is None else read_head(file)
        except StoreError as exc:
            log.warning("%s (treated as absent)", exc)
            return None
        record = None if raw is None else decode_record(raw, self._type, digest)
        return record if record is not None and vouches(record, self._boot_id) else None

    # What `Durability` asks of a shelf (`layerfs.store.durability.PendingTrees`)

    def identify(self, digest: Digest) -> TreeIdentity | None:
        """Return the identity of a tree; None if tree or record is missing. Raises StoreError."""
        record, tree = self.record_path(digest), self._directory / digest.name
        with disk_errors(f"{tree}: cannot look at"), contextlib.suppress(FileNotFoundError):
            return TreeIdentity(os.lstat(record).st_ino, os.lstat(tree).st_ino)
        return None

    def mark_durable(self, digest: Digest, identity: TreeIdentity) -> bool:
        """Let the record say ``durable``; False if the tree is another by now. Raises StoreError."""
        with self._locks.publication(digest), disk_errors(f"{self.record_path(digest)}: cannot write"):
            record = self._record_of(digest, identity)
            if record is None:
                return False
            if record.state != "durable":
                durable = msgspec.structs.replace(record, state="durable")
                self._write_record(digest, durable, after_head(self.record_path(digest)))
                self._known.pop(digest, None)
        return True

    def withdraw(self, digest: Digest, identity: TreeIdentity) -> None:
        """Take the tree away unless it is durable, or another by now; whoever needs it has it made anew.

        Where a mount uses the tree only its record goes, so that nobody else begins to use it. Raises
        StoreError.
        """
        with self._locks.publication(digest):
            record = self._record_of(digest, identity)
            if record is None or record.state == "durable":
                self._durability.forget(self._directory, digest)
                return
            self._known.pop(digest, None)
            try:
                with disk_errors(f"{self._directory / digest.name}: cannot remove"):
                    self._set_aside(digest, _RECENT)
            finally:
                self.forget([digest])

    def _record_of(self, digest: Digest, identity: TreeIdentity) -> Record | None:
        """Return the record of a tree; None if it is not the same tree any more."""
        return self.read_record(digest) if self.identify(digest) == identity else None

    def _take_away(self, digest: Digest, recheck: float) -> bool:
        with disk_errors(f"{self._directory / digest.name}: cannot remove"):
            removed = self._set_aside(digest, recheck)
            self.forget([digest])
            return removed

    def _look(self, digest: Digest, path: Path, status: os.stat_result) -> PublishedTree[Record] | None:
        record = self._sound_record(digest, path, status)
        if record is None:
            return None
        if record.state == "pending":
            self._durability.met(self._directory, digest)
        tree = PublishedTree(path, record)
        if len(self._known) >= _CACHED:
            self._known.clear()
        self._known[digest] = (_seen(status), tree)
        self._note_use(digest)
        return tree

    def _sound_record(self, digest: Digest, path: Path, status: os.stat_result) -> Record | None:
        """Return the record of the tree at *path* if it describes what is there."""
        record = self.read_record(digest) if stat.S_ISDIR(status.st_mode) else None
        if record is None or self._judge.problem(path, record) is None:
            return record
        record = self.read_record(digest)  # again: both may just have been made anew
        return record if record is not None and self._judge.is_sound(path, record) else None

    def _note_use(self, digest: Digest) -> None:
        with contextlib.suppress(OSError):  # a read-only store has no last use
            path = f"{self._prefix}{digest.name}{RECORD_SUFFIX}"
            if time.time() - os.stat(path).st_mtime > _LAST_USE_SECONDS:
                os.utime(path)

    def _set_aside(self, digest: Digest, recheck: float) -> bool:
        """Rename whatever has the final name of *digest*; False if nothing has."""
        if not os.path.lexists(final := self._directory / digest.name):
            return False
        self._refuse_in_use(digest, _RECENT)
        aside = staged(self._directory, digest.name, "removing")
        with self._locks.holding(aside):  # keeps the sweeper off
            os.rename(final, aside)
            try:
                self._refuse_in_use(digest, recheck)
            except StoreError:  # mounted between the first look and the rename
                os.rename(aside, final)
                raise
        return True

    def _refuse_in_use(self, digest: Digest, max_age: float) -> None:
        if self._in_use(digest, max_age):
            raise StoreError(f"{self._directory / digest.name}: in use by a mount (unmount it first)")

    def _write_record(self, digest: Digest, record: Record, tables: Iterable[bytes]) -> None:
        final = self.record_path(digest)
        if final.is_dir() and not final.is_symlink():
            raise StoreDamaged(f"{final}: a directory (expected a record); remove it by hand")
        temporary = staged(self._directory, digest.name, "writing")
        with self._locks.holding(temporary):
            write_durably(temporary, final, encode_record(record), tables)


def _seen(status: os.stat_result) -> _Seen:
    return status.st_ino, status.st_ctime_ns
