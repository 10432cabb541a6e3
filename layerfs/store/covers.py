"""Covers on disk: the plan of `layerfs.layer.cover`, written as directories and whiteouts.

Decides nothing; copies attributes and makes what the plan says, in a private directory. Reads the layer
trees of the stack, writes nothing to them.
"""

import os
import stat
from collections.abc import Sequence
from errno import ENOTDIR
from pathlib import Path
from typing import Final

import msgspec

from layerfs.host.descriptors import closing_fd
from layerfs.layer.cover import Cover, plan_cover, plan_fuse_cover
from layerfs.layer.kinds import Kind, kind_of
from layerfs.layer.paths import split
from layerfs.layer.tables import Tables
from layerfs.layer.whiteout import is_marker
from layerfs.store.copies import copy_attributes, copy_entries
from layerfs.store.records import Merger

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def build_cover(
    target: Path,
    tables: Sequence[Tables],
    trees: Sequence[Path],
    *,
    native: bool = True,
    merger: Merger = "",
) -> None:
    """Write the cover of a stack, base first, for *merger* into the empty directory *target*. Raises OSError.

    Unless *native* the kernel's will lie on the FUSE form of the layers, which shows no markers: then it has
    no whiteouts over them, so that a filesystem without 0:0 devices can hold it. A layer that makes the root
    opaque needs some all the same. Raises InvalidWhiteout for a record with a bad marker name.
    """
    roots = [os.fsencode(tree) for tree in trees]
    decide = plan_fuse_cover if merger else plan_cover
    plan = decide(
        tables,
        lambda number, path: _kind(roots[number], path),
        lambda number, path: os.listdir(os.path.join(roots[number], path)),
    )
    if not native:
        shown = (path for path in plan.whiteouts if not is_marker(split(path)[1]))
        plan = msgspec.structs.replace(plan, whiteouts=tuple(shown))
    write_cover(os.fsencode(target), plan, roots)


def write_cover(target: bytes, cover: Cover, roots: Sequence[bytes]) -> None:
    """Write *cover* into the empty directory *target*. Raises OSError."""
    for directory in cover.directories:
        if directory.path:
            os.mkdir(os.path.join(target, directory.path), 0o700)
    for path in cover.whiteouts:
        os.mknod(os.path.join(target, path), stat.S_IFCHR, os.makedev(0, 0))
    copy_entries(
        (os.path.join(roots[number], path), os.path.join(target, path)) for path, number in cover.copies
    )
    # Deepest first: the times of a directory must not change again, and its mode may forbid entries.
    for directory in reversed(cover.directories):
        _copy_attributes(
            os.path.join(roots[directory.layer], directory.path), os.path.join(target, directory.path)
        )
    if not cover.directories:
        os.chmod(target, 0o755)  # noqa: S103 - the root of a container


def _kind(root: bytes, path: bytes) -> Kind | None:
    try:
        status = os.lstat(os.path.join(root, path))
    except FileNotFoundError:
        return None
    except OSError as exc:
        if exc.errno == ENOTDIR:
            return None
        raise
    return kind_of(status.st_mode, status.st_rdev)


def _copy_attributes(source: bytes, target: bytes) -> None:
    with closing_fd(os.open(source, _DIRECTORY)) as found, closing_fd(os.open(target, _DIRECTORY)) as made:
        copy_attributes(found, made)
