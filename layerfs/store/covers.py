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

from layerfs.errors import StoreUnfit
from layerfs.host.descriptors import closing_fd
from layerfs.layer.cover import Cover, plan_cover, plan_fuse_cover
from layerfs.layer.escaping import Spelling, unchanged, unescaped
from layerfs.layer.kinds import Kind, kind_of
from layerfs.layer.paths import shown, split
from layerfs.layer.tables import Tables
from layerfs.layer.whiteout import is_marker
from layerfs.store.copies import copy_attributes, copy_entries
from layerfs.store.probe import REFUSALS
from layerfs.store.records import Merger

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def build_cover(
    target: Path,
    tables: Sequence[Tables],
    trees: Sequence[Path],
    *,
    native: bool = True,
    spelled: Spelling = unchanged,
    merger: Merger = "",
) -> None:
    """Write the cover of a stack, base first, for *merger* into the empty directory *target*. Raises OSError.

    Unless *native* the kernel's will lie on the FUSE form of the layers, which shows no markers: then it has
    no whiteouts over them, so that a filesystem without 0:0 devices can hold it. A layer that makes the root
    opaque needs some all the same. *spelled* says how *trees* write a path.
    Raises InvalidWhiteout for a record with a bad marker name, StoreUnfit where whiteouts cannot be made.
    """
    roots = [os.fsencode(tree) for tree in trees]
    decide = plan_fuse_cover if merger else plan_cover
    plan = decide(
        tables,
        lambda number, path: _kind(roots[number], spelled(path)),
        lambda number, path: _names(os.path.join(roots[number], spelled(path)), spelled),
    )
    if not native:
        needed = (path for path in plan.whiteouts if not is_marker(split(path)[1]))
        plan = msgspec.structs.replace(plan, whiteouts=tuple(needed))
    if plan.whiteouts and spelled is not unchanged:
        raise _unfit(plan.whiteouts[0])  # untried: fuse-overlayfs makes one that nobody can remove
    write_cover(os.fsencode(target), plan, roots, spelled)


def write_cover(target: bytes, cover: Cover, roots: Sequence[bytes], spelled: Spelling) -> None:
    """Write *cover* into the empty directory *target*. Raises OSError."""
    for directory in cover.directories:
        if directory.path:
            os.mkdir(os.path.join(target, directory.path), 0o700)
    for path in cover.whiteouts:
        _make_whiteout(os.path.join(target, path))
    copy_entries(
        (os.path.join(roots[number], spelled(path)), os.path.join(target, path))
        for path, number in cover.copies
    )
    # Deepest first: the times of a directory must not change again, and its mode may forbid entries.
    for directory in reversed(cover.directories):
        _copy_attributes(
            os.path.join(roots[directory.layer], spelled(directory.path)),
            os.path.join(target, directory.path),
        )
    if not cover.directories:
        os.chmod(target, 0o755)  # noqa: S103 - the root of a container


def _make_whiteout(path: bytes) -> None:
    try:
        os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
    except OSError as exc:
        if exc.errno in REFUSALS:
            raise _unfit(path) from exc
        raise


def _unfit(path: bytes) -> StoreUnfit:
    return StoreUnfit(f"{shown(path)}: no whiteout can be made on this filesystem (expected a 0:0 device)")


def _names(directory: bytes, spelled: Spelling) -> list[bytes]:
    found = os.listdir(directory)
    return found if spelled is unchanged else list(map(unescaped, found))


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
