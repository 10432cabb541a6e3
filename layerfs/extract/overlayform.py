"""The overlay form on the disk, beside the markers: whiteout devices and opaque attributes are made.

`layerfs.layer.overlayfs` decides which. The writer does this once all members are in place, so the order of
marker and content in the archive does not matter.
"""

import os
from collections.abc import Iterable
from itertools import groupby
from stat import S_IFCHR

import msgspec

from layerfs.errors import InvalidLayer
from layerfs.extract.directories import Directories
from layerfs.layer.escaping import Spelling, unchanged
from layerfs.layer.kinds import Kind, kind_of
from layerfs.layer.merge import hidden_by
from layerfs.layer.overlayfs import OPAQUE_VALUE, opaque_xattr, opaques_and_whiteouts
from layerfs.layer.paths import split
from layerfs.layer.record import OwnerKind
from layerfs.layer.whiteout import Opaque, parse_marker


class FoundMarkers(msgspec.Struct, frozen=True):
    """What a layer says of the layers below it. Paths are sorted."""

    whiteouts: tuple[bytes, ...]
    """Paths of all markers but the opaque ones, those without an effect among them."""
    opaques: tuple[bytes, ...]
    """Directories that hold an opaque marker."""


def settle(directories: Directories, markers: Iterable[bytes], spelled: Spelling = unchanged) -> FoundMarkers:
    """Return the markers that are still there: a later member may have replaced their directory.

    *spelled* says how the disk writes their paths.
    """
    whiteouts, opaques = [], []
    for path, _ in groupby(sorted(markers)):
        if _status(directories, spelled(path)) is not None:
            parent, leaf = split(path)
            if isinstance(parse_marker(leaf), Opaque):
                opaques.append(parent)
            else:
                whiteouts.append(path)
    return FoundMarkers(tuple(whiteouts), tuple(sorted(opaques)))


def write_overlay_form(directories: Directories, marks: FoundMarkers, owner: OwnerKind) -> None:
    """Make the whiteouts and opaque attributes that *marks* stand for. Raises OSError."""

    def kind(path: bytes) -> Kind | None:
        status = _status(directories, path)
        return None if status is None else kind_of(status.st_mode, status.st_rdev)

    opaques, whiteouts = opaques_and_whiteouts(hidden_by(marks.whiteouts), marks.opaques, kind)
    name = opaque_xattr(owner)
    for path in sorted(opaques):
        os.setxattr(directories.get(path).fd, name, OPAQUE_VALUE)
    for path in whiteouts:
        parent, leaf = split(path)
        os.mknod(leaf, S_IFCHR, 0, dir_fd=directories.get(parent).fd)


def _status(directories: Directories, path: bytes) -> os.stat_result | None:
    parent_path, leaf = split(path)
    try:
        parent = directories.find(parent_path)
        return None if parent is None else os.stat(leaf, dir_fd=parent.fd, follow_symlinks=False)
    except (InvalidLayer, FileNotFoundError):  # the directory, or one above, became another file
        return None
