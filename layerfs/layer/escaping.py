"""Names for a disk that has no ``.wh.``: what begins so is written with another beginning, one to one. Pure.

fuse-overlayfs takes such names for its own markers: it refuses to make them (EINVAL), or hides what they
stand for. There each component of a path is escaped on its way to the disk, and read back the other way:

- ``.wh.name`` is written ``.%.name``, a byte shorter, so that every marker has room;
- ``.%.name`` gets one ``%`` more, as does ``.%%.name``, and so on: so no name is anybody else's.
"""

import re
from collections.abc import Callable
from typing import Final

Spelling = Callable[[bytes], bytes]
"""How a disk writes a path."""

_SPECIAL: Final = re.compile(rb"(?<![^/])\.(?:wh|(%+))\.")
"""The beginning of a component that is not written as it is."""
_ESCAPED: Final = re.compile(rb"(?<![^/])\.(%+)\.")


def escaped(path: bytes) -> bytes:
    """Return *path*, a name or several, as the disk has it."""
    return _SPECIAL.sub(lambda found: b".%%%b." % (found[1] or b""), path)


def unescaped(path: bytes) -> bytes:
    """Return what *path*, a name or several, is on such a disk: the inverse of `escaped`."""
    return _ESCAPED.sub(lambda found: b".%b." % (found[1][1:] or b"wh"), path)


def unchanged(path: bytes) -> bytes:
    """Return *path*: what a disk has that takes all names."""
    return path
