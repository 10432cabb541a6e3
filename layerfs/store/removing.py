"""Removal of what is complete, many things at once, so that nobody loses what he uses.

A thing is first set aside: renamed to ``<name>.<32 hex>.aside`` in its directory. Only then its users are
looked for once more; what has some gets its name back. Whoever begins to use a thing goes the other way: he
first says so (a mount, a lease, a ref) and looks for the thing then. So one of the two sees the other, in
whatever order they run.

What is to go loses its record and is renamed once more, to ``.removing``, before a file of it is deleted: so
what is set aside is whole. If its process is killed a sweeper gives it its name back (`restore`). Deleting
takes no lock that anybody waits for.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

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


@dataclass(slots=True)
class Removal:
    """What became of a batch."""

    removed: list[Stored] = field(default_factory=list)
    kept: list[tuple[Stored, str]] = field(default_factory=list)
    """What stayed, and why."""
    absent: list[Stored] = field(default_factory=list)
    """What was not there any more."""


@dataclass(slots=True)
class _Aside:
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

        *needed* is called once they are set aside, and returns what says why a thing must stay, with an empty
        text for no reason. Raises StoreError, with all that was set aside back in place.
        """
        done = Removal()
        with contextlib.ExitStack() as held:
            gone: list[_Aside] = []
            with contextlib.ExitStack() as moments:
                found = list(self._set_aside(things, done, moments, held))
                try:
                    reason = needed() if found else _no_reason
                except BaseException:
                    self._put_back(found)
                    raise
                gone = [one for one in found if not reason(one.what)]
                self._put_back(one for one in found if one not in gone)
                done.kept += [(one.what, reason(one.what)) for one in found if one not in gone]
                for kind, shelf in self._stock.shelves.items():
                    shelf.forget(one.what.digest for one in gone if one.what.kind == kind)
            for one in gone:
                self._delete(one, held)
                done.removed.append(one.what)
        return done

    def _set_aside(
        self,
        things: Iterable[Stored],
        done: Removal,
        moments: contextlib.ExitStack,
        held: contextlib.ExitStack,
    ) -> Iterator[_Aside]:
        """Rename each thing that nobody works with; its digest stays locked, its new name is held."""
        absences: dict[Digest, bool] = {}
        for what in things:
            final = self._stock.path(what)
            if not os.path.lexists(final):
                done.absent.append(what)
                continue
            if what.digest not in absences:
                locks = (self._locks.absence(what.digest), self._locks.publication(what.digest))
                absences[what.digest] = all(_taken(lock, moments) for lock in locks)
            if not absences[what.digest]:
                done.kept.append((what, "somebody works with it"))
                continue
            path = staged(final.parent, final.name, "aside")
            held.callback(self._locks.take(path).release)  # keeps the sweeper off
            try:
                os.rename(final, path)
            except FileNotFoundError:
                done.absent.append(what)
            except OSError as exc:
                done.kept.append((what, f"{exc.strerror}"))
            else:
                yield _Aside(what, final, path)

    def _put_back(self, things: Iterable[_Aside]) -> None:
        for one in things:
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


def _no_reason(_: Stored) -> str:
    return ""
