"""One member of an archive, as the reader understood it: the word between `layer` and `extract`.

Holds values only. Must never import a package that does I/O. Made by `layer.tar`, obeyed by
`layerfs.extract.writer`.
"""

from enum import IntEnum
from typing import Protocol

import msgspec


class Type(IntEnum):
    """What a member makes."""

    FILE = 0
    HARDLINK = 1
    SYMLINK = 2
    CHARACTER = 3
    BLOCK = 4
    DIRECTORY = 5
    FIFO = 6
    SOCKET = 7
    """Has no meaning outside the machine that made it: skipped."""


class Member(msgspec.Struct, gc=False):
    """One member; a Struct because making a dataclass takes three times as long, sixty thousand times."""

    name: bytes
    """As the archive has it: to be cleaned by `layerfs.layer.paths` before any use."""
    type: Type
    mode: int
    """Permission bits with setuid, setgid and sticky, nothing else."""
    uid: int
    gid: int
    mtime_ns: int
    size: int
    """Bytes of the file, holes included."""
    stored: int
    """Bytes of content that follow in the archive, without padding."""
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] | None = None
    """All that the archive brings; `layerfs.layer.metadata` says which are kept."""
    extents: list[tuple[int, int]] | None = None
    """Offset and length of the stored pieces of a sparse file, ascending."""


class Source(Protocol):
    """An uncompressed archive, read forwards."""

    def block(self) -> bytes:
        """Return the next 512 bytes, nothing at the end. Raises InvalidArchive for a part of a block."""

    def read(self, size: int) -> bytes:
        """Return the next *size* bytes and pass over their padding. Raises InvalidArchive for fewer."""
