"""What holds of any member of a layer, whether a header of an archive or an entry of a TOC says it. Pure.

Rules about names are in `layerfs.layer.paths` and `layerfs.layer.whiteout`, about single values in
`layerfs.layer.numbers`, `layerfs.layer.pax` and `layerfs.layer.metadata`.
"""

from typing import Final

from layerfs.errors import BudgetExceeded, InvalidArchive
from layerfs.layer.member import Member, Type
from layerfs.layer.metadata import ACL_DEFAULT, check_device
from layerfs.layer.paths import shown
from layerfs.layer.pax import RECORDS_MAX

_FORMAT_MASK, _FORMAT_SOCKET = 0o170000, 0o140000
PERMISSIONS: Final = 0o7777
_FILE: Final = Type.FILE
"""Finding it in its class takes longer than comparing with it."""


def mode_of(number: int) -> int:
    """Return the permission bits of a mode; for a socket, whose file type nothing else tells, that too."""
    mode = number & (_FORMAT_MASK | PERMISSIONS)
    return mode if mode & _FORMAT_MASK == _FORMAT_SOCKET else mode & PERMISSIONS


def settle(member: Member, max_xattr_bytes: int) -> Member:
    """Judge what can only be judged when all of *member* is known; its mode is from `mode_of`.

    Raises InvalidArchive, BudgetExceeded.
    """
    kind = member.type
    if kind is _FILE:
        if member.mode > PERMISSIONS and not member.size:
            member.type = Type.SOCKET
        if member.stored < 0:
            raise InvalidArchive(f"{shown(member.name)}: size {member.size} (expected no negative one)")
    else:
        # Only files have content: a size here is the length of a link, or of what is linked to.
        member.size = member.stored = 0
        if kind is Type.CHARACTER or kind is Type.BLOCK:
            check_device(member.major, member.minor, member.name)
    if member.mode > PERMISSIONS:
        member.mode &= PERMISSIONS
    if member.xattrs:
        _check_xattrs(member, member.xattrs, max_xattr_bytes)
    return member


def _check_xattrs(member: Member, xattrs: dict[bytes, bytes], most: int) -> None:
    if len(xattrs) > RECORDS_MAX:  # of no more bytes than others, but each costs a system call
        raise BudgetExceeded(f"{shown(member.name)}: {len(xattrs)} xattrs (expected at most {RECORDS_MAX})")
    if sum(len(name) + len(value) for name, value in xattrs.items()) > most:
        raise BudgetExceeded(f"{shown(member.name)}: more than {most} bytes of xattrs (max_pax_bytes)")
    if ACL_DEFAULT in xattrs and member.type is not Type.DIRECTORY:
        raise InvalidArchive(f"{shown(member.name)}: a default ACL (expected on directories only)")
