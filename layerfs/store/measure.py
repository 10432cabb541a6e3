"""What things take of the disk: blocks, as du(1) counts them. A tree is walked once, when it is first asked.

A tree never changes, so its size is kept: as an attribute of its record, beside the inode of the tree that
was measured. What a filesystem decides late (delayed allocation, compression) is kept only of a durable tree.
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from layerfs.store.xattrs import xattr

_KEPT: Final = "user.layerfs.blocks"
BLOCK: Final = 512
"""Bytes of a unit of st_blocks (stat(2))."""


def disk_usage(*paths: Path | str) -> int:
    """Return the bytes of *paths* and of all below them, as ``du -c`` would in one run.

    Holes are not counted and hard links once. What vanishes meanwhile or may not be read is left out.
    """
    links: set[tuple[int, int]] = set()
    total = 0
    waiting = [os.fspath(path) for path in paths]
    for path in waiting:
        with suppress(OSError):
            total += _blocks(os.lstat(path), links)
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    total += _blocks(entry.stat(follow_symlinks=False), links)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return total


def room_left(directory: Path) -> str:
    """Return in words what the disk of *directory* has left for this user."""
    try:
        status = os.statvfs(directory)
    except OSError as exc:
        return f"which cannot be looked at: {exc.strerror}"
    files = f" and {status.f_favail:,} files" if status.f_files else ""  # btrfs has no limit of them
    return f"{status.f_bavail * status.f_frsize / 1e6:,.1f} MB{files}"


def tree_usage(tree: Path, record: Path, settled: Callable[[], bool]) -> int:
    """Return the bytes of a tree with its record; what was measured before if that can be known.

    *settled* says whether the disk has all of the tree, so that its size is final.
    """
    try:
        status, about = os.lstat(tree), os.lstat(record)
    except OSError:
        return disk_usage(tree, record)
    own = about.st_blocks * BLOCK
    kept = _kept(record, status)
    if kept is None:
        kept = disk_usage(tree)
        if settled():
            with suppress(OSError):  # a store that may only be read, a filesystem without attributes
                xattr.setxattr(os.fspath(record), _KEPT, b"%d %d" % (status.st_ino, kept), symlink=True)
    return kept + own


def _kept(record: Path, tree: os.stat_result) -> int | None:
    try:
        inode, size = xattr.getxattr(os.fspath(record), _KEPT, symlink=True).split()
        return int(size) if int(inode) == tree.st_ino else None
    except (OSError, ValueError):
        return None


def _blocks(status: os.stat_result, links: set[tuple[int, int]]) -> int:
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        identity = (status.st_dev, status.st_ino)
        if identity in links:
            return 0
        links.add(identity)
    return status.st_blocks * BLOCK
