"""Safe relative paths: what a member's name or a hard link's target means below the layer's root.

Decides on bytes alone, before anything touches a disk; that no symlink is followed on the way is
`layerfs.extract.directories`'s part. Pure.

A leading ``/`` and ``./`` are dropped, as all tools of the field do; ``..`` is refused wherever it stands,
also where it would stay inside: no tool writes it, and tools disagree on what it means.
"""

from typing import Final

from layerfs.errors import BudgetExceeded, InvalidArchive, PathEscape
from layerfs.foreign import printable
from layerfs.layer.names import to_text

NAME_MAX: Final = 255
"""Bytes of one component (limits.h)."""


def clean(name: bytes, max_depth: int) -> bytes:
    """Return *name* as a relative path without empty and ``.`` components; empty for the root.

    Raises PathEscape for ``..``, InvalidArchive for an empty name, a NUL or a component that is too long,
    BudgetExceeded for more than *max_depth* components.
    """
    if not name:
        raise InvalidArchive("an entry has an empty name")
    if b"\0" in name:
        raise InvalidArchive(f"{shown(name)}: the name holds a NUL")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise PathEscape(f"{shown(name)}: the name holds '..'")
    if len(parts) > max_depth:
        raise BudgetExceeded(f"{shown(name)}: {len(parts)} components (max_depth is {max_depth})")
    if parts and max(map(len, parts)) > NAME_MAX:
        raise InvalidArchive(f"{shown(name)}: a component is longer than {NAME_MAX} bytes")
    return b"/".join(parts)


def is_plain(leaf: bytes) -> bool:
    """Say whether *leaf*, without a slash, needs no look at all: a short name, no marker, no dots."""
    return 0 < len(leaf) <= NAME_MAX and leaf[0] != 0x2E and 0 not in leaf


def split(path: bytes) -> tuple[bytes, bytes]:
    """Return the directory of *path* and its name; the root is the empty path."""
    directory, _, name = path.rpartition(b"/")
    return directory, name


def join(directory: bytes, name: bytes) -> bytes:
    """Return the path of *name* in *directory*."""
    return directory + b"/" + name if directory else name


def shown(name: bytes) -> str:
    """Return *name* for people: readable, and not longer than a line or two."""
    text = printable(to_text(name)) or "(root)"
    return text if len(text) <= 300 else f"{text[:200]}…{text[-80:]}"
