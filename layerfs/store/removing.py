"""Removal of what is complete, many things at once, so that nobody loses what he uses.

What has no users is set aside: renamed to ``<name>.<32 hex>.aside`` in its directory. Then its users are
looked for once more; what has some gets its name back. Whoever begins to use a thing goes the other way: he
first says so (a mount, a lease, a ref) and looks for the thing then. So one of the two sees the other, in
whatever order they run.

Both looks and the renames happen under one lock of the store. Who takes a lease waits for that lock once the
lease is written: so what he finds then was not set aside for a moment, and will not be.

What is to go loses its record and is renamed once more, to ``.removing``, before a file of it is deleted: so
what is set aside is whole. If its process is killed a sweeper gives it its name back (`restore`). Deleting
takes no lock that anybody waits for.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from layerfs.errors import StoreError
from layerfs.host.oserrors import disk_errors
from layerfs.oci import Digest
from layerfs.store.layout import staged
from layerfs.store.locks import ByteLock, Locks
from layerfs.store.removal import remove_tree
from layerfs.store.stock import Stock, Stored

BATCH: Final = 64
"""Things set aside at once: the more, the fewer looks at all mounts; each holds three descriptors."""

log = logging.getLogger(__name__)


class Removal(msgspec.Struct):
    """What became of a batch."""

    removed: list[Stored] = msgspec.field(default_factory=list)
    kept: list[tuple[Stored, str]] = msgspec.field(default_factory=list)
    """What stayed, and why."""
    absent: list[Stored] = msgspec.field(default_factory=list)
    """What was not there any more."""


class _Aside(msgspec.Struct):
    what: Stored
    final: Path
    path: Path


class Remover:
    """Removes things of one store. Thread-safe, and safe among processes."""

    def __init__(self, stock: Stock, locks: Locks) -> None:
        self._stock = stock
        self._locks = locks

    def remove(self, things: Iterable[Stored], needed: Callable[[], Callable[[Stored], str]]) -> Removal:
        """Remove *things* but those that are needed after all; at most `BATCH` of them.

        *needed* is called before and after they are set aside, and returns what says why a thing must stay,
        with an empty text for no reason. It must not take a lease. Raises StoreError, with all that was set
        aside back in place.
        """
        done = Removal()
        with contextlib.ExitStack() as held:
            with self._locks.removal(), contextlib.ExitStack() as moments:
                gone = self._choose(things, needed, done, moments, held)
            for one in gone:
                self._delete(one, held)
                done.removed.append(one.what)
        return done

    def _choose(
        self,
        things: Iterable[Stored],
        needed: Callable[[], Callable[[Stored], str]],
        done: Removal,
        moments: contextlib.ExitStack,
        held: contextlib.ExitStack,
    ) -> list[_Aside]:
        """Set aside what nobody needs, and drop its records; what is needed by then gets its name back."""
        free = _unneeded(self._lock_present(things, done, moments), needed, done)
        found: list[_Aside] = []
        try:
            for what in free:
                self._set_aside(what, done, held, found)
            gone = set(_unneeded([one.what for one in found], needed, done))
            for kind, shelf in self._stock.shelves.items():
                shelf.forget(what.digest for what in gone if what.kind == kind)
        except BaseException:
            self._put_back(found)
            raise
        self._put_back(one for one in found if one.what not in gone)
        return [one for one in found if one.what in gone]

    def _lock_present(
        self, things: Iterable[Stored], done: Removal, moments: contextlib.ExitStack
    ) -> list[Stored]:
        """Return those *things* that are there and that nobody works with; their digests stay locked."""
        absences: dict[Digest, bool] = {}
        found = []
        for what in things:
            if not os.path.lexists(self._stock.path(what)):
                done.absent.append(what)
                continue
            if what.digest not in absences:
                locks = (self._locks.absence(what.digest), self._locks.publication(what.digest))
                absences[what.digest] = all(_taken(lock, moments) for lock in locks)
            if absences[what.digest]:
                found.append(what)
            else:
                done.kept.append((what, "somebody works with it"))
        return found

    def _set_aside(
        self, what: Stored, done: Removal, held: contextlib.ExitStack, found: list[_Aside]
    ) -> None:
        final = self._stock.path(what)
        path = staged(final.parent, final.name, "aside")
        held.callback(self._locks.take(path).release)  # keeps the sweeper off
        try:
            os.rename(final, path)
        except FileNotFoundError:
            done.absent.append(what)
        except OSError as exc:
            done.kept.append((what, f"{exc.strerror}"))
        else:
            found.append(_Aside(what, final, path))

    def _put_back(self, things: Iterable[_Aside]) -> None:
        with contextlib.ExitStack() as all_of_them:  # whatever becomes of one
            for one in things:
                all_of_them.callback(self._put_one_back, one)

    @staticmethod
    def _put_one_back(one: _Aside) -> None:
        with disk_errors(f"{one.final}: cannot put it back"):
            os.rename(one.path, one.final)

    def _delete(self, one: _Aside, held: contextlib.ExitStack) -> None:
        path = one.path.with_suffix(".removing")
        try:
            held.callback(self._locks.take(path).release)
            os.rename(one.path, path)
            remove_tree(path)
        except OSError as exc:  # the sweeper tries again
            log.warning("%s: cannot be removed now: %s", path, exc)


def restore(path: Path, stem: str, locks: Locks) -> bool:
    """Give what a killed process set aside its name *stem* back; False if that is taken, or locked just now.

    The caller holds the byte of *path*, so nobody removes it now. Raises OSError.
    """
    final = path.parent / stem
    lock = locks.publication(Digest.from_name(stem.partition(".")[0]))
    if not lock.try_acquire():
        return False
    try:
        if os.path.lexists(final):
            return False
        os.rename(path, final)
    finally:
        lock.release()
    return True


def remove_directory(path: Path, locks: Locks, user: Callable[[Path], str]) -> None:
    """Set a directory of the store aside, ask whose it is now, and remove it if it is nobody's.

    Raises StoreError, with what *user* says of where it is then.
    """
    aside = staged(path.parent, path.name, "removing")
    with locks.holding(aside), disk_errors(f"{path}: cannot remove"):
        os.rename(path, aside)
        reason = user(aside)
        if reason:
            os.rename(aside, path)
            raise StoreError(f"{path}: {reason}")
        remove_tree(aside)


def _taken(lock: ByteLock, until: contextlib.ExitStack) -> bool:
    try:
        taken = lock.try_acquire()
    except StoreError as exc:
        log.info("not removed: %s", exc)
        return False
    if taken:
        until.callback(lock.release)
    return taken


def _unneeded(
    things: list[Stored], needed: Callable[[], Callable[[Stored], str]], done: Removal
) -> list[Stored]:
    """Return those *things* that nobody needs right now; the others are kept, with the reason."""
    if not things:
        return []
    why = needed()
    reasons = {what: why(what) for what in things}
    done.kept += [(what, reason) for what, reason in reasons.items() if reason]
    return [what for what, reason in reasons.items() if not reason]
