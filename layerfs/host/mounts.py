"""What is mounted where, and how to end it.

The text of mountinfo is parsed once into frozen values; only fuse mounts of our own are ever cleaned up.
"""

import os
import subprocess
from dataclasses import dataclass
from errno import EBUSY, EINVAL, ENOENT, ENOTCONN, EPERM

from layerfs.errors import MountError
from layerfs.host.libc import call

FSNAME = "layerfs"
"""The source column of our mounts, in mount(8) and mountinfo."""

FUSE_TYPE = b"fuse." + FSNAME.encode()

_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_MOUNTINFO = "/proc/self/mountinfo"
_OCTAL_DIGITS = frozenset(b"01234567")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo, unescaped; see proc_pid_mountinfo(5)."""

    mount_id: int
    parent_id: int
    device: tuple[int, int]
    """Major and minor of st_dev of the files in it."""
    root: bytes
    """The directory of the filesystem that is seen at *point*."""
    point: bytes
    options: tuple[bytes, ...]
    fstype: bytes
    source: bytes
    super_options: tuple[bytes, ...]
    """Options of the filesystem itself; an overlay's ``lowerdir=`` or ``lowerdir+=`` are here."""

    @property
    def is_layerfs(self) -> bool:
        """Whether it is a mount of ours, by type and source."""
        return self.fstype == FUSE_TYPE and self.source == FSNAME.encode()

    @property
    def user(self) -> int | None:
        """The user id of who mounted it, as the kernel keeps it for FUSE; None where it keeps none."""
        for option in self.super_options:
            name, _, value = option.partition(b"=")
            if name == b"user_id" and value.isdigit():
                return int(value)
        return None


def unescape(text: bytes) -> bytes:
    r"""Undo the kernel's octal escapes, ``\040`` for a space; anything else stays as it is."""
    head, *rest = text.split(b"\\")
    parts = [head]
    for part in rest:
        digits = part[:3]
        if len(digits) == 3 and digits[0] in b"0123" and _OCTAL_DIGITS.issuperset(digits):
            parts += [bytes((int(digits, 8),)), part[3:]]
        else:
            parts += [b"\\", part]
    return b"".join(parts)


def parse_mountinfo(text: bytes) -> list[Mount]:
    """Read the lines of mountinfo, in their order: of two at one point the later is on top.

    A line that breaks the format is left out; proc_pid_mountinfo(5) allows new fields, before the dash too.
    """
    return [mount for line in text.split(b"\n") if (mount := _parse_line(line)) is not None]


def _parse_line(line: bytes) -> Mount | None:
    fields = line.split(b" ")
    try:
        dash = fields.index(b"-", 6)
        major, minor = fields[2].split(b":")
        fstype, source, super_options = fields[dash + 1 : dash + 4]
        return Mount(
            mount_id=int(fields[0]),
            parent_id=int(fields[1]),
            device=(int(major), int(minor)),
            root=unescape(fields[3]),
            point=unescape(fields[4]),
            options=_options(fields[5]),
            fstype=unescape(fstype),
            source=unescape(source),
            super_options=_options(super_options),
        )
    except ValueError:
        return None


def _options(text: bytes) -> tuple[bytes, ...]:
    return tuple(unescape(option) for option in text.split(b","))


def read_mounts() -> list[Mount]:
    """Return all mounts of this mount namespace. Raises OSError."""
    with open(_MOUNTINFO, "rb") as file:
        return parse_mountinfo(file.read())


def mounts_at(path: str | bytes | os.PathLike[str]) -> list[Mount]:
    """Return the mounts at exactly *path* (symlinks resolved), the topmost last. Raises OSError."""
    point = os.path.realpath(os.fsencode(path))
    return [mount for mount in read_mounts() if mount.point == point]


def filesystem_of(device: int) -> bytes | None:
    """Return the type of the filesystem whose files have st_dev *device*, None if no mount shows it.

    Raises OSError.
    """
    wanted = (os.major(device), os.minor(device))
    return next((mount.fstype for mount in read_mounts() if mount.device == wanted), None)


def is_dead(point: bytes) -> bool:
    """Say whether the filesystem at *point* has lost its daemon.

    By opendir, not stat: stat may be answered from the cache of a dead mount.
    """
    try:
        os.close(os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == ENOTCONN
    return False


def clean_up(path: str | bytes | os.PathLike[str]) -> int:
    """Unmount every dead mount of ours on top of *path* and return how many there were.

    A dead one may be stacked on a dead one. Live ones and those of others are left alone. Raises MountError.
    """
    count = 0
    while (found := mounts_at(path)) and found[-1].is_layerfs and is_dead(found[-1].point):
        unmount(found[-1].point, lazy=True)
        count += 1
    return count


def unmount(path: str | bytes | os.PathLike[str], *, lazy: bool = False) -> None:
    """Unmount the topmost mount at *path*; with *lazy* even while it is used. Raises MountError.

    Lazy tries without first, so that the mount is really gone when nobody uses it. Who may not call
    umount(2) asks fusermount3, which may unmount the fuse mounts of its caller.
    """
    point = os.path.realpath(os.fsencode(path))
    error = _try_unmount(point, detach=False)
    if error is not None and error.errno == EBUSY and lazy:
        error = _try_unmount(point, detach=True)
    if error is not None:
        raise MountError(_refusal(point, error))


def _refusal(point: bytes, error: OSError) -> str:
    shown = os.fsdecode(point)
    if error.errno == EBUSY:
        return f"{shown}: in use (close what is open below it, or unmount with --lazy)"
    if error.errno in (EINVAL, ENOENT):
        return f"{shown}: nothing is mounted there"
    return f"{shown}: cannot unmount: {error.strerror}"


def _try_unmount(point: bytes, *, detach: bool) -> OSError | None:
    try:
        call("umount2", point, _UMOUNT_NOFOLLOW | (_MNT_DETACH if detach else 0), thing=point)
    except OSError as error:
        if error.errno != EPERM:
            return error
        return _ask_fusermount(point, detach=detach)
    return None


def _ask_fusermount(point: bytes, *, detach: bool) -> OSError | None:
    command = ["fusermount3", "-uz" if detach else "-u", "--", os.fsdecode(point)]
    try:
        done = subprocess.run(command, check=False, capture_output=True)
    except FileNotFoundError:
        return OSError(EPERM, "not permitted, and fusermount3 is not installed")
    if done.returncode == 0:
        return None
    text = done.stderr.decode(errors="replace").strip()
    return OSError(EBUSY if "busy" in text.lower() else EPERM, text)
