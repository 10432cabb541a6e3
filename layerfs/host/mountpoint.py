"""A directory that something is, or will be, mounted at: held by descriptors from the first look to the last.

Between a look at a path and mount(2) at it, whoever owns a directory above can put a link in the place of a
part; then the mount would land where the link leads. A descriptor keeps to what was looked at.
"""

import os
import pwd
from errno import EBUSY, EINVAL, ENOENT, ENOTDIR, EPERM
from typing import Final, Self

from layerfs.errors import MountError
from layerfs.host.descriptors import closing_fd, mount_id
from layerfs.host.libc import call, syscall
from layerfs.host.mounts import Mount, is_dead, read_mounts
from layerfs.host.occupants import named, read_occupants

_MNT_FORCE: Final = 1
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8
_MOVE_MOUNT: Final = 429
_BENEATH: Final = 0x4 | 0x40 | 0x200
"""MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH, MOVE_MOUNT_BENEATH."""
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_NONE: Final = -1


class Mountpoint:
    """One directory, the mount on it, if any, and the directory above. Made by `open`; a context manager."""

    def __init__(self, path: bytes, parent: int, fd: int) -> None:
        self.path = path
        """Absolute, without links, as it was when it was opened: to show."""
        self._parent = parent
        self._name = os.path.basename(path) or b"."
        self._fd = fd

    @classmethod
    def open(cls, path: str | bytes | os.PathLike[str]) -> Self:
        """Open an existing directory. Raises MountError."""
        shown = os.fsdecode(path)
        try:
            with closing_fd(os.open(path, _DIRECTORY)) as first:
                found = _name_of(first)
            parent = os.open(os.path.dirname(found), _DIRECTORY)
            try:
                fd = os.open(os.path.basename(found) or b".", _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            except BaseException:
                os.close(parent)
                raise
        except OSError as error:
            if error.errno in (ENOENT, ENOTDIR):
                raise MountError(
                    f"{shown}: not a directory (expected an existing one; mkdir it first)"
                ) from error
            raise MountError(f"{shown}: {error.strerror} (expected a directory)") from error
        opened = cls(found, parent, fd)
        if _name_of(fd) != found:
            opened.close()
            raise MountError(
                f"{shown}: another directory than a moment ago (expected one above which nobody renames any)"
            )
        return opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        return os.fsdecode(self.path)

    def close(self) -> None:
        """Let go of the directories; harmless a second time."""
        for fd in (self._fd, self._parent):
            if fd != _NONE:
                os.close(fd)
        self._fd = self._parent = _NONE

    @property
    def fd(self) -> int:
        """The directory as it was when it was opened, whatever is mounted on it by now."""
        return self._fd

    @property
    def target(self) -> bytes:
        """A path to `fd`, for system calls of this process that take no descriptor."""
        return b"/proc/%d/fd/%d" % (os.getpid(), self._fd)

    @property
    def inside(self) -> bytes:
        """A path to what can be seen in the directory now."""
        return b"/proc/self/fd/%d/%b" % (self._parent, self._name)

    def mount(self) -> Mount | None:
        """Return the mount on top of the directory; None if there is none. Raises OSError."""
        try:
            # Without O_DIRECTORY, which would have autofs mount something.
            fd = os.open(self._name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._parent)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with closing_fd(fd):
            number = mount_id(fd)
        if number == mount_id(self._parent):
            return None
        return next((one for one in read_mounts() if one.mount_id == number), None)

    def covers_files(self) -> bool:
        """Say whether there is something in the directory that a mount on it would hide."""
        try:
            return bool(os.listdir(self.inside))
        except OSError:
            return False

    def clean_up(self) -> int:
        """Unmount every dead mount of ours on top and return how many there were.

        A dead one may be stacked on a dead one. Live ones and those of others are left alone.
        Raises MountError.
        """
        count = 0
        while (found := self.mount()) is not None and found.is_layerfs and is_dead(self.inside):
            self.unmount(lazy=True)
            count += 1
        if count:
            self._fd = os.open(self._name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self._parent)
        return count

    def put_beneath(self, tree: int) -> None:
        """Attach the mount *tree*, of open_tree(2), under what is on top and hides it. Raises OSError."""
        self.let_go()
        with closing_fd(os.open(self._name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self._parent)) as top:
            syscall("move_mount", _MOVE_MOUNT, tree, b"", top, b"", _BENEATH)

    def detach_top(self) -> None:
        """Detach what is on top, which goes on for those who have files open. Raises OSError."""
        call("umount2", self.inside, _UMOUNT_NOFOLLOW | _MNT_DETACH)

    def unmount(self, *, lazy: bool = False, force: bool = False) -> bool:
        """Unmount what is on top; with *lazy* even while it is used: True if it was. Raises MountError.

        Lazy tries without first, so that the mount is really gone when nobody uses it. With *force* the
        kernel first ends the connection to a daemon of FUSE, for all who wait for it, whether or not the
        mount is busy then: umount2(2), MNT_FORCE. Who may not call umount(2) asks fusermount3, which may
        unmount the fuse mounts of its caller, without force. `fd` is closed before: it would be a use.
        """
        self.let_go()
        error = self._try_unmount(_MNT_FORCE if force else 0)
        used = error is not None and error.errno == EBUSY and lazy
        if used:
            error = self._try_unmount(_MNT_DETACH)
        if error is not None:
            raise MountError(f"{self}: {_refusal(self.mount(), error)}")
        return used

    def let_go(self) -> None:
        """Close `fd`, which is a use of what it is in."""
        if self._fd != _NONE:
            os.close(self._fd)
            self._fd = _NONE

    def _try_unmount(self, flags: int) -> OSError | None:
        try:
            call("umount2", self.inside, _UMOUNT_NOFOLLOW | flags)
        except OSError as error:
            if error.errno != EPERM:
                return error
            if flags & _MNT_FORCE:
                return OSError(EPERM, "only root may end a mount by force (expected that, or --lazy)")
            found = self.mount()
            if found is not None and found.user not in (None, os.getuid()):
                return OSError(EPERM, f"mounted by {_user_name(found.user)} (expected that user, or root)")
            return _ask_fusermount(self.path, detach=bool(flags & _MNT_DETACH))
        return None


def _name_of(fd: int) -> bytes:
    return os.readlink(b"/proc/self/fd/%d" % fd)


def _refusal(found: Mount | None, error: OSError) -> str:
    if error.errno == EBUSY and found is not None:
        return f"in use {_in_the_way(found)}, or unmount with --lazy"
    if error.errno in (EINVAL, ENOENT):
        return "nothing is mounted there"
    return f"cannot unmount: {error.strerror}"


def _in_the_way(found: Mount) -> str:
    """Say who keeps the mount *found* busy, and what to do about it."""
    if below := [one.point for one in read_mounts() if one.parent_id == found.mount_id]:
        return f"by the mount {os.fsdecode(below[-1])} below it; unmount that before"
    occupants = read_occupants({found.device})
    if of_it := occupants.of(found.device):
        return f"by {named(of_it)}; let go of it there"
    if occupants.unseen:
        return "by a process of another user, or another mount namespace; let go of it there"
    return "by what /proc does not show; try again"


def _user_name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid or 0).pw_name
    except KeyError:
        return f"user {uid}"


def _ask_fusermount(point: bytes, *, detach: bool) -> OSError | None:
    import subprocess

    command = ["fusermount3", "-uz" if detach else "-u", "--", os.fsdecode(point)]
    try:
        done = subprocess.run(command, check=False, capture_output=True)
    except FileNotFoundError:
        return OSError(EPERM, "not permitted, and fusermount3 is not installed")
    if done.returncode == 0:
        return None
    text = done.stderr.decode(errors="replace").strip()
    return OSError(EBUSY if "busy" in text.lower() else EPERM, text)
