"""What is mounted where: the text of mountinfo, parsed once into frozen values."""

import os
from errno import ENOTCONN

import msgspec

FSNAME = "layerfs"
"""The source column of our mounts, in mount(8) and mountinfo, unless fstab(5) has another."""

FUSE_TYPE = b"fuse.layerfs"

_MOUNTINFO = "/proc/self/mountinfo"
_OCTAL_DIGITS = frozenset(b"01234567")


class Mount(msgspec.Struct, frozen=True):
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
        """Whether it is a mount of ours, by type."""
        return self.fstype == FUSE_TYPE

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
    if b"\\" not in text:
        return text
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
