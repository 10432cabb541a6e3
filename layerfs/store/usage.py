r"""Which layers and covers the mounts of this machine use, as far as /proc shows them.

Decides by the text of mountinfo, in every mount namespace that can be read: a digest's file name or short id
in an overlay's lower directory, or in what a bind mount shows, is a use. Errs on the side of use: a name that
only looks like one keeps a layer alive. Knows what it could not see (`Usage.blind`).

Overlay shows its lower directories as they were given, relative ones and symlinks too, in two spellings:
``lowerdir=a:b`` (mount(2), ``:`` and ``\`` escaped by backslashes) and ``lowerdir+=a`` (fsconfig(2), not
escaped); the kernel's octal escapes around both are undone by `layerfs.host.mounts`.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from errno import EINVAL
from pathlib import Path
from typing import Final

import msgspec

from layerfs.host.mounts import Mount, parse_mountinfo
from layerfs.host.overlay import SOURCE
from layerfs.layer.overlayfs import split_lowerdir
from layerfs.layer.paths import shown
from layerfs.oci import Digest

_DIGEST: Final = re.compile(rb"(?:sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})")
_SHORT_ID: Final = re.compile(rb"[a-z2-7]{26}")
_RANDOM: Final = rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])"
_PROC: Final = Path("/proc")
VARIABLE: Final = "LAYERFS_PID_NAMESPACE"
"""The variable that names the pid namespace (as /proc/self/ns/pid does) of all who could use a store."""
_FIRST_PID_NAMESPACE: Final = "pid:[4026531836]"
"""The namespace that all others are in (include/linux/proc_ns.h, PROC_PID_INIT_INO)."""


_Looked = dict[tuple[tuple[int, int], bytes], bool]
"""Whether one could look at the lower directories of overlays, by device, of which names say nothing."""


class MountUse(msgspec.Struct, frozen=True):
    """A mount that uses something of a store, as one of the processes that have it sees it."""

    point: bytes
    pid: int
    """0 for one that nobody sees: it was detached while a process was in it."""

    def __str__(self) -> str:
        seen = f"seen by process {self.pid}" if self.pid else "detached, but a process is still in it"
        return f"mount {shown(self.point)}, {seen}"


class Usage(msgspec.Struct, frozen=True):
    """What is in use, of any store: names do not say of which."""

    digests: Mapping[Digest, MountUse] = msgspec.field(default_factory=dict)
    short_ids: Mapping[str, MountUse] = msgspec.field(default_factory=dict)
    """`Digest.short_id` of layers and stacks, from paths that lead through a mount of ours."""
    unreadable: Mapping[int, int] = msgspec.field(default_factory=dict)
    """How many processes of each uid there are whose mounts, or what is in them, this process may not see."""
    scratches: frozenset[bytes] = frozenset()
    """Names of 32 hexadecimal digits in what mounts show and in their options: scratches of stores."""
    beside: Mapping[Digest, frozenset[bytes]] = msgspec.field(default_factory=dict)
    """The lower directories without a digest in their names of all overlays of ours that use one."""
    hidden: str = ""
    """Why there may be processes of which nothing is seen; empty if there are none."""

    def with_overlay(self, scratch: str, lowers: Sequence[bytes], target: bytes) -> "Usage":
        """Return this, and that an overlay that nobody sees any more, once at *target*, uses *lowers*."""
        digests, short_ids, use = dict(self.digests), dict(self.short_ids), MountUse(target, 0)
        beside = dict(self.beside)
        _add_overlay(lowers, beside)
        for path in lowers:
            digests |= dict.fromkeys(_digests(path), use)
            short_ids |= dict.fromkeys(_short_id(path), use)
        scratches = self.scratches | {scratch.encode("ascii")}
        return msgspec.structs.replace(
            self, digests=digests, short_ids=short_ids, scratches=scratches, beside=beside
        )

    def uses(self, digest: Digest) -> bool:
        """Say whether a mount uses the layer or the cover *digest*."""
        return digest in self.digests or digest.short_id in self.short_ids

    def use_of(self, digest: Digest) -> MountUse | None:
        """Return a mount that uses the layer or the cover *digest*."""
        return self.digests.get(digest) or (self.short_ids.get(digest.short_id) if self.short_ids else None)

    def blind(self, reached_by: Callable[[int], bool]) -> str:
        """Say what could not be seen of users that the store is *reached_by*; empty if that was all."""
        if self.hidden:
            return self.hidden
        count = sum(count for uid, count in self.unreadable.items() if reached_by(uid))
        return f"{count} processes or overlays of others may not be looked at by this user" if count else ""


class UsageCache:
    """Remembers what *look* said for callers that can live with what was true a moment ago. Thread-safe."""

    def __init__(self, look: Callable[[], Usage]) -> None:
        self._look = look
        self._last = (Usage(), float("-inf"))

    def read(self, max_age: float) -> Usage:
        """Return the usage as it was at most *max_age* seconds ago."""
        usage, when = self._last
        now = time.monotonic()
        if max_age <= 0 or now - when > max_age:
            usage = self._look()
            self._last = (usage, now)
        return usage

    def uses(self, digest: Digest, max_age: float) -> bool:
        """Say whether a mount used *digest* at most *max_age* seconds ago."""
        return self.read(max_age).uses(digest)


def read_usage(proc: Path = _PROC) -> Usage:
    """Look at every mount namespace that some process is in."""
    digests: dict[Digest, MountUse] = {}
    short_ids: dict[str, MountUse] = {}
    unreadable: Counter[int] = Counter()
    scratches: set[bytes] = set()
    beside: dict[Digest, frozenset[bytes]] = {}
    looked: _Looked = {}
    for pid, mounts in _namespaces(proc):
        if mounts is None:
            with suppress(OSError):  # it ended
                unreadable[os.stat(proc / str(pid)).st_uid] += 1
            continue
        scratches.update(*map(_random_names, mounts))
        for mount in mounts:
            if (mount.fstype, mount.source) == (b"overlay", SOURCE):
                _add_overlay(lower_directories(mount), beside)
        for path, point in _paths(mounts, proc / str(pid) / "root", looked):
            use = MountUse(point, pid)
            digests.update(dict.fromkeys(_digests(path), use))
            short_ids.update(dict.fromkeys(_short_id(path), use))
    unseen = sum(not seen for seen in looked.values())
    if unseen:  # of somebody who may go where this process may not: of root
        unreadable[0] += unseen
    return Usage(digests, short_ids, unreadable, frozenset(scratches), beside, _hidden(proc))


def _hidden(proc: Path) -> str:
    """Say why /proc may show some processes only; empty if it shows all of the machine."""
    try:
        if os.readlink(proc / "self/ns/pid") not in (_FIRST_PID_NAMESPACE, os.environ.get(VARIABLE)):
            return "this is a pid namespace of its own: mounts of processes outside are not seen"
        if os.geteuid() == 0:
            return ""
        own = parse_mountinfo((proc / "self/mountinfo").read_bytes())
    except OSError as exc:
        return f"{proc} cannot be read: {exc.strerror}"
    at_proc = [mount for mount in own if mount.point == os.fsencode(proc)]
    for option in at_proc[-1].super_options if at_proc else ():
        if option.startswith(b"hidepid=") and option not in (b"hidepid=0", b"hidepid=off"):
            return f"{proc} hides the processes of others ({os.fsdecode(option)})"
    return ""


def mounts_with(names: Iterable[str], proc: Path = _PROC) -> dict[str, MountUse]:
    """Return the mount, of any namespace, that has one of *names* in what it shows or in an option, by name.

    Names of 32 hexadecimal digits, which occur nowhere by chance.
    """
    wanted = {name.encode("ascii"): name for name in names}
    found: dict[str, MountUse] = {}
    for pid, mounts in _namespaces(proc) if wanted else ():
        for mount in mounts or ():
            for word in wanted.keys() & _random_names(mount):
                found.setdefault(wanted[word], MountUse(mount.point, pid))
    return found


def _random_names(mount: Mount) -> set[bytes]:
    return set(re.findall(_RANDOM, b"\n".join((mount.root, *mount.super_options))))


def lower_directories(mount: Mount) -> Iterator[bytes]:
    """Yield the lower directories of an overlay, as they were given; all readings of doubtful ones."""
    for option in mount.super_options:
        name, equals, value = option.partition(b"=")
        if not equals:
            continue
        if name in (b"lowerdir+", b"datadir+"):
            yield value
        elif name == b"lowerdir":
            yield from split_lowerdir(value)


def _namespaces(proc: Path) -> Iterator[tuple[int, list[Mount] | None]]:
    """Yield one process of each view of the mounts with what it sees; None for what may not be read.

    A process in a chroot sees those below its root only, so namespaces alone do not tell views apart.
    """
    seen: set[tuple[str, str]] = set()
    for name in os.listdir(proc):
        if not name.isdecimal():
            continue
        directory = proc / name
        try:
            with suppress(PermissionError):  # then this one is read although it may be known
                view = os.readlink(directory / "ns/mnt"), os.readlink(directory / "root")
                if view in seen:
                    continue
                seen.add(view)
            yield int(name), parse_mountinfo((directory / "mountinfo").read_bytes())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended
        except OSError as exc:
            if exc.errno != EINVAL:  # what the kernel says of a process that has let go of its namespaces
                yield int(name), None


def _paths(mounts: Iterable[Mount], root: Path, looked: _Looked) -> Iterator[tuple[bytes, bytes]]:
    """Yield each path that says what a mount shows, and where the mount is."""
    for mount in mounts:
        yield mount.root, mount.point
        yield mount.point, mount.point
        if mount.fstype == b"overlay":
            for lower in lower_directories(mount):
                yield lower, mount.point
                if not _digests(lower) and not _short_id(lower):
                    found = _resolve(root, lower)
                    key = mount.device, lower
                    looked[key] = looked.get(key, False) or found is not None
                    yield found or b"", mount.point


def _resolve(root: Path, lower: bytes) -> bytes | None:
    """Return where *lower* leads, symlinks followed, in the namespace of *root*.

    Empty if that is unknown, None if this process may not look.
    """
    if not lower.startswith(b"/"):
        return b""  # relative to a directory that nobody recorded
    try:
        fd = os.open(os.fsencode(root) + lower, os.O_PATH | os.O_CLOEXEC)
    except PermissionError:
        return None
    except OSError:
        return b""
    try:
        return os.readlink(os.fsencode(f"/proc/self/fd/{fd}"))
    except OSError:
        return b""
    finally:
        os.close(fd)


def _add_overlay(lowers: Iterable[bytes], beside: dict[Digest, frozenset[bytes]]) -> None:
    named = {lower: _digests(lower) for lower in lowers}
    others = frozenset(lower for lower, digests in named.items() if not digests)
    for digest in set().union(*named.values()):
        beside[digest] = beside.get(digest, frozenset()) | others


def _digests(path: bytes) -> set[Digest]:
    return {
        Digest.from_name(component.decode("ascii"))
        for component in path.split(b"/")
        if _DIGEST.fullmatch(component)
    }


def _short_id(path: bytes) -> set[str]:
    last = path.rsplit(b"/", 1)[-1]
    return {last.decode("ascii")} if _SHORT_ID.fullmatch(last) else set()
