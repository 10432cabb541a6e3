"""Reading again what was stored: blobs against their digests, layer directories against a second extraction.

Decides what counts as a difference; changes nothing and never fails on a file that is not as it should be.
"""

import filecmp
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from layerfs.layer.kinds import is_whiteout
from layerfs.layer.paths import shown
from layerfs.oci import Digest
from layerfs.store.xattrs import read_all

_CHUNK: Final = 1 << 20
_COMPARED: Final = ("st_mode", "st_uid", "st_gid", "st_rdev")


def blob_problem(path: Path, digest: Digest) -> str | None:
    """Say what is wrong with the blob at *path*; None if its bytes hash to *digest*."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        return f"the blob cannot be read: {exc.strerror} ({path})"
    try:
        with open(fd, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return f"the blob is not a regular file ({path})"
            hasher = digest.hasher()
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
    except OSError as exc:
        return f"the blob cannot be read: {exc.strerror} ({path})"
    found = Digest.finish(digest.algorithm, hasher)
    return None if found == digest else f"the blob hashes to {found} ({path})"


def tree_differences(found: Path, expected: Path, untimed: Collection[bytes] = frozenset()) -> Iterator[str]:
    """Yield how the directory *found* differs from *expected*, one line each.

    The times of whiteout devices and of the directories *untimed* are those of their extraction.
    """
    roots = os.fsencode(found), os.fsencode(expected)
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        here, there = (os.path.join(root, path) if path else root for root in roots)
        try:
            problem = _difference(here, there, timed=path not in untimed)
            children = [] if problem else _children(here, there)
        except OSError as exc:
            problem, children = f"cannot be read: {exc.strerror}", []
        if problem:
            yield f"{shown(path)}: {problem}"
        waiting += [os.path.join(path, name) if path else name for name in children]


def _children(here: bytes, there: bytes) -> list[bytes]:
    """Return the names in either directory; a name that only one has is found different later."""
    if not stat.S_ISDIR(os.lstat(there).st_mode):
        return []
    return sorted({*os.listdir(here), *os.listdir(there)}, reverse=True)


def _difference(here: bytes, there: bytes, *, timed: bool) -> str | None:
    if not os.path.lexists(there):
        return "not in the archive"
    if not os.path.lexists(here):
        return "missing"
    found, expected = os.lstat(here), os.lstat(there)
    whiteout = is_whiteout(expected.st_mode, expected.st_rdev)
    compared = _COMPARED if whiteout or not timed else (*_COMPARED, "st_mtime_ns")
    for name in compared:
        if getattr(found, name) != getattr(expected, name):
            return f"{name} is {getattr(found, name)} (expected {getattr(expected, name)})"
    if dict(read_all(here)) != dict(read_all(there)):
        return "other extended attributes than in the archive"
    return _content_difference(here, there, found, expected)


def _content_difference(
    here: bytes, there: bytes, found: os.stat_result, expected: os.stat_result
) -> str | None:
    if stat.S_ISLNK(expected.st_mode) and os.readlink(here) != os.readlink(there):
        return "leads elsewhere than in the archive"
    if stat.S_ISREG(expected.st_mode):
        if found.st_nlink != expected.st_nlink:
            return f"{found.st_nlink} hard links (expected {expected.st_nlink})"
        if not filecmp.cmp(here, there, shallow=False):
            return "other bytes than in the archive"
    return None
