"""Whiteout markers: what a name that begins with ``.wh.`` says about the layers below.

Decides on a name alone, before anything touches a disk. Pure: must never import a package that does I/O.

A marker's effect depends on its name, never on its type or content (image-spec layer.md, "Whiteouts"; the
tools of the field do not look either). It acts on *lower* layers only: a sibling of the hidden name in the
same layer stays, in whatever order the archive lists them.

A marker cannot be hidden by a marker. ``.wh.`` is reserved (image-spec layer.md, "Filesystem changesets"), so
no lower layer holds an entry whose name begins with it, and ``.wh..wh.name`` would hide nothing: these names
are AUFS's own bookkeeping (``.wh..wh.aufs``, ``.wh..wh.orph``, ``.wh..wh.plnk``) and have no effect at all.
"""

import msgspec

from layerfs.errors import InvalidWhiteout
from layerfs.layer.paths import join, shown

WH_PREFIX = b".wh."
"""Begins the name of each marker."""

OPAQUE_MARKER = b".wh..wh..opq"
"""In a directory: nothing that lower layers have below it is visible."""

_RESERVED_PREFIX = WH_PREFIX + WH_PREFIX


class Whiteout(msgspec.Struct, frozen=True):
    """Hides one sibling name of lower layers."""

    hidden: bytes
    """One component, not itself a marker."""


class Opaque(msgspec.Struct, frozen=True):
    """Hides all siblings of lower layers."""


class Reserved(msgspec.Struct, frozen=True):
    """A name of AUFS's own: kept in ``diff/``, hidden in ``lower/`` and in the union, without effect."""


Marker = Whiteout | Opaque | Reserved


def parse_marker(name: bytes) -> Marker | None:
    """Say what the entry *name*, one path component, stands for; None for an ordinary name.

    Raises InvalidWhiteout for a prefix that is followed by nothing, ``.`` or ``..``: no sibling has these
    names, and obeying would hide the directory itself or its parent.
    """
    if not name.startswith(WH_PREFIX):
        return None
    if name == OPAQUE_MARKER:
        return Opaque()
    if name.startswith(_RESERVED_PREFIX):
        return Reserved()
    hidden = name[len(WH_PREFIX) :]
    if hidden in (b"", b".", b".."):
        raise InvalidWhiteout(f"{shown(name)}: hides nothing (expected {shown(WH_PREFIX)} and a name)")
    return Whiteout(hidden)


def is_marker(name: bytes) -> bool:
    """Say whether *name* is reserved for markers, and so never an entry of the union."""
    return name.startswith(WH_PREFIX)


def markers_in(path: bytes) -> list[bytes]:
    """Return the paths of the markers that *path*, from `layerfs.layer.paths.clean`, goes through or is.

    Raises InvalidWhiteout for a marker that hides nothing, or that has content below it.
    """
    found = []
    at = b""
    for part in path.split(b"/"):
        at = join(at, part)
        marker = _marker(part, path)
        if marker is None:
            continue
        if len(at) < len(path) and not isinstance(marker, Reserved):
            raise InvalidWhiteout(f"{shown(path)}: an entry below a marker (expected an empty file)")
        found.append(at)
    return found


def _marker(part: bytes, path: bytes) -> Marker | None:
    """Return what *part* of *path* stands for. Raises InvalidWhiteout that names the whole path."""
    try:
        return parse_marker(part)
    except InvalidWhiteout as exc:
        if part == path:
            raise
        raise InvalidWhiteout(f"{shown(path)}: {exc}") from None
