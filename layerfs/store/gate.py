"""The way into a store: whoever could change it must be this user or root, and nobody else is let in.

Looks at the directory through one descriptor, at the way to it and at what is in it, by owner and mode; what
a file in it claims counts for nothing. Makes a store that is not there yet. Modes are set, and not left to
mkdir(2), so no umask matters.
"""

import contextlib
import logging
import os
import stat
from pathlib import Path
from typing import Final

import msgspec

from layerfs.errors import StoreMismatch
from layerfs.host.descriptors import closing_fd
from layerfs.host.oserrors import disk_errors
from layerfs.host.trust import believed, changeable, named, writable_by_others
from layerfs.store.disk import make_directories
from layerfs.store.layout import StagedName, StoreLayout

_PRIVATE: Final = 0o700
_SHARED: Final = 0o755
_LOCK_MODE: Final = 0o600
"""Whoever can read the file can lock it."""
_OTHERS: Final = 0o077
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

log = logging.getLogger(__name__)


class StoreGate(msgspec.Struct, frozen=True):
    """One store and who may have made it."""

    layout: StoreLayout
    maker: int | None = None
    """A user whose store is believed beside one's own and root's."""

    def enter(self) -> bool:
        """Make the store if there is none, refuse one that others could change; say if it may be written.

        Raises StoreMismatch, StoreFull, StoreReadOnly, StoreError.
        """
        root = self.layout.root
        with disk_errors(f"{root}: cannot make the store"):
            if not os.path.lexists(root):
                self._require_way(root, None)
                make_directories(root, _PRIVATE, _SHARED)
            with closing_fd(os.open(root, _DIRECTORY)) as fd:
                status = os.fstat(fd)
                self._require_maker(root, status)
                self._require_way(root, status)
                if writable_by_others(status):
                    self._close_root(fd, status)
                writable = self._is_writable(status)
                if writable:
                    self._make_inside()
                self._look_inside()
        return writable

    def set_modes(self, *, shared: bool, anew: bool) -> None:
        """Close the store to other users, or let them read if it is *shared*, in so far as it is ours.

        A shared one whose owner closes parts of it, to all but a group for instance, stays like that unless
        *anew* says that it was not shared before. Raises StoreReadOnly, StoreError.
        """
        mode = _SHARED if shared else _PRIVATE
        for path in (self.layout.root, *self.layout.directories):
            with disk_errors(f"{path}: cannot set its mode"), closing_fd(os.open(path, _DIRECTORY)) as fd:
                status = os.fstat(fd)
                found = stat.S_IMODE(status.st_mode)
                wanted = mode if shared and anew else found & mode | _PRIVATE
                wanted |= found & stat.S_ISGID  # the group of what is made in it, by which quotas count
                if found != wanted and status.st_uid == os.geteuid() and self._is_ours_alone(path):
                    log.info("%s: mode %04o instead of %04o", path, wanted, found)
                    _chmod(fd, wanted)

    def _require_way(self, path: Path, itself: os.stat_result | None) -> None:
        problem = changeable(os.fspath(path), believed() | self._makers(), itself)
        if problem is not None:
            raise StoreMismatch(
                f"{path}: {problem}, so another store could be put there "
                f"(expected directories of {self._expected()}); use a --store below one of your own"
            )

    def _require_maker(self, path: Path, status: os.stat_result) -> None:
        maker = named(status.st_uid)
        if status.st_uid not in self._makers():
            raise StoreMismatch(
                f"{path}: belongs to {maker} (expected {self._expected()}); run as {maker}, use another "
                f"--store, or believe what is in it with --store-owner {status.st_uid}"
            )

    def _makers(self) -> frozenset[int]:
        """Return whose store is believed; a namespace cannot tell a maker whom it does not have."""
        mine = frozenset({0, os.geteuid()})
        return mine if self.maker is None else mine | {self.maker} | believed()

    def _expected(self) -> str:
        users = sorted({0, os.geteuid()} | ({self.maker} if self.maker is not None else set()), reverse=True)
        return " or ".join(map(named, users))

    def _is_writable(self, status: os.stat_result) -> bool:
        """Say whether this process may write. Raises StoreMismatch where it may not even look."""
        root = self.layout.root
        if not os.access(root, os.X_OK, effective_ids=True):
            maker = named(status.st_uid)
            raise StoreMismatch(
                f"{root}: made by {maker} and closed to {named(os.geteuid())} (expected the same user); "
                f"run as {maker}, use another --store, or have it opened by --share-store"
            )
        return os.access(root, os.W_OK | os.X_OK, effective_ids=True)

    def _make_inside(self) -> None:
        for directory in self.layout.directories:
            if not directory.is_dir():
                make_directories(directory, _PRIVATE, _SHARED)
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(self.layout.lock)
            if status.st_mode & _OTHERS and stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                os.chmod(self.layout.lock, _LOCK_MODE)

    def _look_inside(self) -> None:
        layout = self.layout
        for path in (*layout.directories, *layout.later_directories, layout.owner, layout.lock):
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                self._require_maker(path, status)
                if (
                    stat.S_ISLNK(status.st_mode) and path in layout.directories
                ):  # to another disk, by its owner
                    status = os.stat(path)
                    self._require_maker(path, status)
                    self._require_way(path, status)
                if writable_by_others(status):
                    raise self._refusal(path, status)

    def _close_root(self, fd: int, status: os.stat_result) -> None:
        """Take away what a lax umask gave to others; what is in the store is looked at next."""
        root, mode = self.layout.root, stat.S_IMODE(status.st_mode)
        # A new tmpfs is everybody's, and so is /tmp: the one is empty, the other is not to be closed.
        for_all = mode & stat.S_ISVTX and os.listdir(root)
        if status.st_uid != os.geteuid() or for_all or not self._is_ours_alone(root):
            raise self._refusal(root, status)
        log.warning("%s: others could write to it, mode %04o; closed to them now", root, mode)
        _chmod(fd, mode & ~0o022)

    def _refusal(self, path: Path, status: os.stat_result) -> StoreMismatch:
        mode = stat.S_IMODE(status.st_mode)
        return StoreMismatch(
            f"{path}: others can write to it, mode {mode:04o} (expected {mode & ~0o1022:04o}), so what is in "
            "it may be anybody's; use another --store, or look at it and chmod go-w"
        )

    def _is_ours_alone(self, path: Path) -> bool:
        """Say whether the mode of *path* is layerfs's business: no other things are in that directory."""
        if path != self.layout.root:
            return True
        known = {each.name for each in (*self.layout.directories, *self.layout.later_directories)}
        known |= {self.layout.owner.name, self.layout.lock.name, "lost+found"}
        return all(name in known or StagedName.parse(name) is not None for name in os.listdir(path))


def _chmod(fd: int, mode: int) -> None:
    os.chmod(f"/proc/self/fd/{fd}", mode)  # fchmod(2) refuses a descriptor that can only be looked at
