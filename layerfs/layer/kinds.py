"""What matters of a file type when layers merge, and what lstat(2) of a layer directory says of it. Pure."""

from enum import Enum
from stat import S_ISCHR, S_ISDIR


class Kind(Enum):
    """What matters of a file type here: only directories merge."""

    DIRECTORY = "directory"
    OTHER = "other"


def is_whiteout(mode: int, rdev: int) -> bool:
    """Say whether lstat(2) found a whiteout of overlayfs: a character device 0:0."""
    return rdev == 0 and S_ISCHR(mode)


def kind_of(mode: int, rdev: int) -> Kind | None:
    """Return the kind of what lstat(2) found in a layer directory; None for a whiteout."""
    if S_ISDIR(mode):
        return Kind.DIRECTORY
    return None if is_whiteout(mode, rdev) else Kind.OTHER
