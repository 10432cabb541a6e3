r"""Which layers and covers the mounts of this machine use, as far as /proc shows them.

Decides by the text of mountinfo, in every mount namespace that can be read: a digest's file name or short id
in an overlay's lower directory, or in what a bind mount shows, is a use. Errs on the side of use: a name that
only looks like one keeps a layer alive.

Overlay shows its lower directories as they were given, relative ones and symlinks too, in two spellings:
``lowerdir=a:b`` (mount(2), ``:`` and ``\`` escaped by backslashes) and ``lowerdir+=a`` (fsconfig(2), not
escaped); the kernel's octal escapes around both are undone by `layerfs.host.mounts`.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from layerfs.host.mounts import Mount, parse_mountinfo
from layerfs.layer.overlayfs import split_lowerdir
from layerfs.oci import Digest

_DIGEST: Final = re.compile(rb"(?:sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})")
_SHORT_ID: Final = re.compile(rb"[a-z2-7]{26}")
_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """What is in use, of any store: names do not say of which."""

    digests: frozenset[Digest] = frozenset()
    short_ids: frozenset[str] = frozenset()
    """`Digest.short_id` of layers and stacks, from paths that lead through a mount of ours."""
    unreadable: int = 0
    """Processes whose mounts this process may not see."""

    def uses(self, digest: Digest) -> bool:
        """Say whether a mount uses the layer or the cover *digest*."""
        return digest in self.digests or digest.short_id in self.short_ids


class UsageCache:
    """Remembers what /proc said for callers that can live with what was true a moment ago. Thread-safe."""

    def __init__(self) -> None:
        self._last = (Usage(), float("-inf"))

    def read(self, max_age: float) -> Usage:
        """Return the usage as it was at most *max_age* seconds ago."""
        usage, when = self._last
        now = time.monotonic()
        if max_age <= 0 or now - when > max_age:
            usage = read_usage()
            self._last = (usage, now)
        return usage

    def uses(self, digest: Digest, max_age: float) -> bool:
        """Say whether a mount used *digest* at most *max_age* seconds ago."""
        return self.read(max_age).uses(digest)


def read_usage(proc: Path = _PROC) -> Usage:
    """Look at every mount namespace that some process is in."""
    digests: set[Digest] = set()
    short_ids: set[str] = set()
    unreadable = 0
    for pid, mounts in _namespaces(proc):
        if mounts is None:
            unreadable += 1
            continue
        for path in _paths(mounts, proc / str(pid) / "root"):
            digests.update(_digests(path))
            short_ids.update(_short_id(path))
    return Usage(frozenset(digests), frozenset(short_ids), unreadable)


def mounts_with(word: bytes, proc: Path = _PROC) -> list[Mount]:
    """Return the mounts, of all namespaces, with *word* in what they show or in an option.

    For names that occur nowhere by chance, a random one for instance.
    """
    return [
        mount
        for _, mounts in _namespaces(proc)
        for mount in mounts or ()
        if word in mount.root or any(word in option for option in mount.super_options)
    ]


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
        except OSError:
            yield int(name), None


def _paths(mounts: Iterable[Mount], root: Path) -> Iterator[bytes]:
    for mount in mounts:
        yield mount.root
        yield mount.point
        if mount.fstype == b"overlay":
            for lower in lower_directories(mount):
                yield lower
                if not _digests(lower) and not _short_id(lower):
                    yield _resolve(root, lower)


def _resolve(root: Path, lower: bytes) -> bytes:
    """Return where *lower* leads, symlinks followed, in the namespace of *root*; empty if that is unknown."""
    if not lower.startswith(b"/"):
        return b""  # relative to a directory that nobody recorded
    try:
        fd = os.open(os.fsencode(root) + lower, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.readlink(os.fsencode(f"/proc/self/fd/{fd}"))
    except OSError:
        return b""
    finally:
        os.close(fd)


def _digests(path: bytes) -> set[Digest]:
    return {
        Digest.from_name(component.decode("ascii"))
        for component in path.split(b"/")
        if _DIGEST.fullmatch(component)
    }


def _short_id(path: bytes) -> set[str]:
    last = path.rsplit(b"/", 1)[-1]
    return {last.decode("ascii")} if _SHORT_ID.fullmatch(last) else set()
