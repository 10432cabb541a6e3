"""The overlay form beside the markers: what kernel overlayfs needs to see (design.md, section 4).

Decides from the markers of a layer and what the finished tree has at the names they hide, and makes whiteout
devices and opaque attributes. Called by `writer` once all members are in place, so that the order of marker
and content does not matter.

A whiteout below an opaque directory would hide nothing, and overlayfs lists it
(facts/fuse-and-overlay.md, section 4): it is not made.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from stat import S_IFCHR, S_ISDIR
from typing import Final

from layerfs.errors import InvalidLayer
from layerfs.extract.directories import Directories
from layerfs.extract.job import OwnerKind
from layerfs.layer.paths import join, split
from layerfs.layer.whiteout import Opaque, Whiteout, parse_marker

_OPAQUE_VALUE: Final = b"y"


@dataclass(frozen=True, slots=True)
class Marks:
    """What a layer says of the layers below it. Paths are sorted."""

    whiteouts: tuple[bytes, ...]
    """Of the markers, those without an effect among them."""
    opaques: tuple[bytes, ...]
    """Of directories that hold an opaque marker."""


def settle(directories: Directories, markers: Iterable[bytes]) -> Marks:
    """Return the markers that are still there: a later member may have replaced their directory."""
    whiteouts, opaques = [], []
    for path, _ in groupby(sorted(markers)):
        if _status(directories, path) is not None:
            parent, leaf = split(path)
            if isinstance(parse_marker(leaf), Opaque):
                opaques.append(parent)
            else:
                whiteouts.append(path)
    return Marks(tuple(whiteouts), tuple(sorted(opaques)))


def write_overlay_form(directories: Directories, marks: Marks, owner: OwnerKind) -> None:
    """Make the whiteouts and opaque attributes that *marks* stand for. Raises OSError."""
    opaque = set(marks.opaques)
    devices = []
    for path in marks.whiteouts:
        parent, leaf = split(path)
        marker = parse_marker(leaf)
        if isinstance(marker, Whiteout):
            hidden = join(parent, marker.hidden)
            status = _status(directories, hidden)
            if status is None:
                devices.append(hidden)
            elif S_ISDIR(status.st_mode):
                opaque.add(hidden)
    name = "trusted.overlay.opaque" if owner == "root" else "user.overlay.opaque"
    for path in sorted(opaque):
        os.setxattr(directories.get(path).fd, name, _OPAQUE_VALUE)
    for path in devices:
        parent, leaf = split(path)
        if not opaque.intersection(_with_ancestors(parent)):
            os.mknod(leaf, S_IFCHR, 0, dir_fd=directories.get(parent).fd)


def _with_ancestors(path: bytes) -> Iterable[bytes]:
    yield path
    while path:
        path = split(path)[0]
        yield path


def _status(directories: Directories, path: bytes) -> os.stat_result | None:
    parent_path, leaf = split(path)
    try:
        parent = directories.find(parent_path)
        return None if parent is None else os.stat(leaf, dir_fd=parent.fd, follow_symlinks=False)
    except (InvalidLayer, FileNotFoundError):  # the directory, or one above, became another file
        return None
