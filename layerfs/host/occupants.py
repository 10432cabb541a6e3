"""Which processes keep a mount busy, as fuser(1) -m finds them: by /proc, with nothing asked of the mount.

A mount may hang or be dead, so nobody looks into it: the kernel says in which mount a descriptor is
(proc_pid_fdinfo(5)), and opening a link of /proc with O_PATH asks no filesystem.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from layerfs.host.descriptors import closing_fd, mount_id
from layerfs.host.mounts import parse_mountinfo

Device = tuple[int, int]
"""Major and minor of a mounted filesystem, as mountinfo has them."""

_PROC: Final = Path("/proc")
_LINKS: Final = (("cwd", "works in"), ("root", "has its root in"), ("exe", "runs"))
_NAMED_MAX: Final = 5
"""Processes that one message names."""


class Occupant(msgspec.Struct, frozen=True):
    """A process that has something of a mount; the first thing that was found of it."""

    pid: int
    command: str
    """The name of its program (proc_pid_comm(5))."""
    does: str
    """What it does there: works in, has its root in, runs, has open, maps."""
    path: str

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid}, {self.does} {self.path})"


class Occupants(msgspec.Struct, frozen=True):
    """The processes that were found, by the filesystem that they are in."""

    found: Mapping[Device, tuple[Occupant, ...]]
    unseen: int
    """How many processes this one may not look at."""

    def of(self, device: Device | None) -> tuple[Occupant, ...]:
        """Return those in the filesystem *device*; nobody for None."""
        return () if device is None else self.found.get(device, ())


def read_occupants(devices: Collection[Device], proc: Path = _PROC) -> Occupants:
    """Look at every process of this pid namespace but this one; what it has in *devices* is returned."""
    found: dict[Device, list[Occupant]] = {}
    unseen = 0
    views: dict[tuple[str, str], dict[int, Device]] = {}
    for name in os.listdir(proc) if devices else ():
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        process = proc / name
        try:
            view = os.readlink(process / "ns/mnt"), os.readlink(process / "root")
            if view not in views:
                mounts = parse_mountinfo((process / "mountinfo").read_bytes())
                views[view] = {one.mount_id: one.device for one in mounts if one.device in devices}
            command = (process / "comm").read_text(errors="replace").rstrip("\n")
            seen: dict[Device, tuple[str, str]] = {}
            for device, does, path in _possessions(process, views[view]):
                seen.setdefault(device, (does, path))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended
        except OSError:
            unseen += 1
            continue
        for device, (does, path) in seen.items():
            found.setdefault(device, []).append(Occupant(int(name), command, does, path))
    return Occupants({device: tuple(several) for device, several in found.items()}, unseen)


def named(occupants: Collection[Occupant]) -> str:
    """Return the processes in words, for a message; the first of many."""
    rest = len(occupants) - _NAMED_MAX
    words = ", ".join(str(one) for one in list(occupants)[:_NAMED_MAX])
    return f"{words} and {rest} more" if rest > 0 else words


def _possessions(process: Path, mounts: Mapping[int, Device]) -> Iterator[tuple[Device, str, str]]:
    """Yield what a process has in *mounts*: the device, what it does there, and the path."""
    if not mounts:
        return
    for link, does in _LINKS:
        with suppress(FileNotFoundError):  # a thread of the kernel has no program
            path = os.readlink(process / link)
            with closing_fd(os.open(process / link, os.O_PATH | os.O_CLOEXEC)) as fd:
                if (device := mounts.get(mount_id(fd))) is not None:
                    yield device, does, path
    for name in os.listdir(process / "fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            about = (process / "fdinfo" / name).read_bytes()
            if (device := mounts.get(_mount_id_of(about))) is not None:
                yield device, "has open", os.readlink(process / "fd" / name)
    devices = {b"%02x:%02x" % device: device for device in mounts.values()}
    for line in (process / "maps").read_bytes().split(b"\n"):
        fields = line.split(None, 5)  # proc_pid_maps(5): addresses, rights, offset, device, inode, path
        if len(fields) == 6 and fields[3] in devices:
            yield devices[fields[3]], "maps", os.fsdecode(fields[5])


def _mount_id_of(about: bytes) -> int:
    """Return the number of the mount in the text of an fdinfo; 0, which no mount has, if it has none."""
    line = next((line for line in about.split(b"\n") if line.startswith(b"mnt_id:")), b": 0")
    return int(line.split()[1])
