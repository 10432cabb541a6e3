"""Reading extended attributes of what the store holds, without following links.

The view shows them and may not import xattr itself. Decides nothing.
"""

import os
from collections.abc import Mapping
from errno import EACCES, ENODATA, ENOTSUP, EPERM
from types import MappingProxyType
from typing import Final

from layerfs.spared import without

with without(late=["xattr"]):  # which brings cffi; most commands read no attribute
    import xattr

__all__ = ["NO_XATTRS", "read_all", "read_one", "xattr"]

NO_XATTRS: Final[Mapping[bytes, bytes]] = MappingProxyType({})

_NONE_THERE: Final = frozenset({ENOTSUP, EPERM, EACCES})
"""A filesystem without xattrs, or one that shows them to others only."""


def read_all(path: bytes) -> Mapping[bytes, bytes]:
    """Return the extended attributes of *path* itself, which may be a link. Raises OSError."""
    try:
        names = xattr.listxattr(path, symlink=True)
    except OSError as exc:
        if exc.errno in _NONE_THERE:
            return NO_XATTRS
        raise
    if not names:
        return NO_XATTRS
    found: dict[bytes, bytes] = {}
    for name in names:
        try:
            found[os.fsencode(name)] = xattr.getxattr(path, name, symlink=True)
        except OSError as exc:
            if exc.errno not in _NONE_THERE and exc.errno != ENODATA:
                raise
    return found


def read_one(path: bytes, name: str) -> bytes | None:
    """Return one extended attribute of *path* itself, None if it has none of this name. Raises OSError."""
    try:
        value: bytes = xattr.getxattr(path, name, symlink=True)
    except OSError as exc:
        if exc.errno == ENODATA or exc.errno in _NONE_THERE:
            return None
        raise
    return value
