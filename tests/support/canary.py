"""Takes a full description of a tree, and says how two descriptions differ.

A canary is a tree that an attack must not touch; the same description compares what two programs
made of one archive, or what two mounts show of one tree.
"""

import dataclasses
import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Field = Literal["mode", "owner", "size", "mtime_ns", "device", "target", "content", "xattrs", "links"]
Snapshot = dict[bytes, "Fact"]

_CHUNK = 1 << 20
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Everything about one entry that two equal trees must agree on."""

    kind: str
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    size: int | None = None
    """Of files and symlinks; a directory's is the filesystem's own business."""
    device: int | None = None
    target: bytes | None = None
    content: str | None = None
    """SHA-256 of a file."""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    links: tuple[bytes, ...] = ()
    """All paths of this inode within the tree, if there is more than one."""


def snapshot(
    root: Path | str | bytes, *, content: bool = True, xattrs: bool = True, one_filesystem: bool = True
) -> Snapshot:
    """Describe *root* and everything below it, by path relative to it; the root itself is ``b""``."""
    top = os.fsencode(root)
    device = os.lstat(top).st_dev
    status: dict[bytes, os.stat_result] = {}
    for path in _walk(top):
        found = os.lstat(path)
        if found.st_dev == device or not one_filesystem:
            status[path] = found
    groups = _link_groups(top, status)
    return {
        _relative(top, path): _fact(
            path, found, groups.get((found.st_dev, found.st_ino), ()), content, xattrs
        )
        for path, found in status.items()
    }


def differences(
    expected: Snapshot,
    found: Snapshot,
    *,
    ignore: Collection[Field] = (),
    ignore_overlay_xattrs: bool = False,
) -> list[str]:
    """Say in one line for each path how *found* differs; empty if it does not."""
    lines = [f"{_show(path)}: missing" for path in sorted(expected.keys() - found.keys())]
    lines += [f"{_show(path)}: unexpected" for path in sorted(found.keys() - expected.keys())]
    for path in sorted(expected.keys() & found.keys()):
        wanted, seen = (
            _without_overlay(expected[path], found[path])
            if ignore_overlay_xattrs
            else (
                expected[path],
                found[path],
            )
        )
        for field in dataclasses.fields(Fact):
            one, other = getattr(wanted, field.name), getattr(seen, field.name)
            if one != other and field.name not in ignore:
                lines.append(f"{_show(path)}: {field.name} is {other!r} (expected {one!r})")
    return lines


def assert_same(
    expected: Snapshot,
    found: Snapshot,
    *,
    ignore: Collection[Field] = (),
    ignore_overlay_xattrs: bool = False,
) -> None:
    """Fail the test with the first differences, unless there are none."""
    lines = differences(expected, found, ignore=ignore, ignore_overlay_xattrs=ignore_overlay_xattrs)
    assert not lines, f"{len(lines)} differences:\n" + "\n".join(lines[:40])


def _walk(top: bytes) -> Iterator[bytes]:
    yield top
    for parent, directories, files in os.walk(top):
        for name in directories + files:
            yield os.path.join(parent, name)


def _link_groups(top: bytes, status: dict[bytes, os.stat_result]) -> dict[tuple[int, int], tuple[bytes, ...]]:
    groups: dict[tuple[int, int], list[bytes]] = {}
    for path, found in status.items():
        if not stat.S_ISDIR(found.st_mode):
            groups.setdefault((found.st_dev, found.st_ino), []).append(_relative(top, path))
    return {key: tuple(sorted(paths)) for key, paths in groups.items() if len(paths) > 1}


def _fact(path: bytes, found: os.stat_result, links: tuple[bytes, ...], content: bool, xattrs: bool) -> Fact:
    mode = found.st_mode
    return Fact(
        kind=stat.filemode(mode)[0],
        mode=stat.S_IMODE(mode),
        owner=(found.st_uid, found.st_gid),
        mtime_ns=found.st_mtime_ns,
        size=found.st_size if stat.S_ISREG(mode) or stat.S_ISLNK(mode) else None,
        device=found.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else None,
        target=os.readlink(path) if stat.S_ISLNK(mode) else None,
        content=_hash(path) if content and stat.S_ISREG(mode) else None,
        xattrs=_xattrs(path) if xattrs else (),
        links=links,
    )


def _xattrs(path: bytes) -> tuple[tuple[str, bytes], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)


def _hash(path: bytes) -> str:
    hasher = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def _without_overlay(*facts: Fact) -> list[Fact]:
    return [
        dataclasses.replace(
            fact, xattrs=tuple(pair for pair in fact.xattrs if not pair[0].startswith(_OVERLAY_XATTRS))
        )
        for fact in facts
    ]


def _relative(top: bytes, path: bytes) -> bytes:
    return path[len(top) :].lstrip(b"/")


def _show(path: bytes) -> str:
    return os.fsdecode(path) if path else "(root)"
