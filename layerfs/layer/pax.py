"""PAX extended headers: records, and what they change in the member that follows.

Pure; called by `layer.tar`. Format: POSIX.1-2017 pax "pax Extended Header"; xattrs as star and libarchive
write them; sparse keys as in the GNU tar manual, "PAX Format".
"""

import binascii
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import msgspec

from layerfs.errors import BudgetExceeded, InvalidArchive
from layerfs.layer.member import Member, Type
from layerfs.layer.numbers import decimal, timestamp
from layerfs.layer.paths import shown

Records = list[tuple[bytes, bytes]]

SPARSE: Final = b"GNU.sparse."
_SCHILY: Final = b"SCHILY.xattr."
_LIBARCHIVE: Final = b"LIBARCHIVE.xattr."
_IGNORED: Final = frozenset({b"atime", b"ctime", b"comment"})
"""Known, frequent, and of no use."""
_LINES: Final = re.compile(rb"(?m)^([0-9]{1,19}) ([^=\n\0]+)=([^\n\0]*)\n")
"""Anchored, so that each line is tried once, however much it looks like the beginning of many records."""
_FILE_TYPE: Final = b"SCHILY.filetype"
_PERCENT: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
RECORDS_MAX: Final = 20_000
"""Records of one header: ten thousand pieces of a sparse file, which is what most are of."""
_MANY: Final = 1000
"""Lines of a header that are worth counting while they are read."""
_OWNER_MAX: Final = (1 << 32) - 2
"""2^32-1 tells chown(2) to change nothing."""

PERSONAL: Final = frozenset({b"path", b"linkpath", b"size", _FILE_TYPE})
"""What a global header cannot mean for all members; like the sparse keys, it is not taken from there."""


class Header(msgspec.Struct, frozen=True, gc=False):
    """What one extended header says of the member after it."""

    records: Records
    mtime_ns: int | None = None
    """If this is all that the records say: most that there are say this and no more."""


NONE: Final = Header([])


def read(body: bytes) -> Header:
    """Read the body of an extended header. Raises InvalidArchive."""
    records = parse_records(body)
    if len(records) == 1 and records[0][0] == b"mtime":
        with suppress(InvalidArchive):  # `apply` can say of which member
            return Header(records, timestamp(records[0][1]))
    return Header(records)


def parse_records(body: bytes) -> Records:
    """Read ``<length> <key>=<value>`` lines, in order. Raises InvalidArchive."""
    if body.count(b"\n") > _MANY:
        return _parse_by_length(body)
    records = []
    end = 0
    # Nearly all bodies are lines of text: what does not look like that is read by its lengths, and judged.
    for length, key, value in _LINES.findall(body):
        size = len(length) + len(key) + len(value) + 3
        if int(length) != size:
            return _parse_by_length(body)
        end += size
        records.append((key, value))
    return records if end == len(body) else _parse_by_length(body)


def _parse_by_length(body: bytes) -> Records:
    records = []
    position, end = 0, len(body)
    while position < end:
        space = body.find(b" ", position, position + 21)
        length = body[position:space]
        if space < 0 or not length.isdigit():
            raise InvalidArchive(f"PAX record at byte {position}: no length")
        after = position + int(length)
        equals = body.find(b"=", space + 1, after)
        if after > end or equals < 0 or body[after - 1] != 0x0A or equals == space + 1:
            raise InvalidArchive(
                f"PAX record at byte {position}: malformed (expected length, key=value, newline)"
            )
        key, value = body[space + 1 : equals], body[equals + 1 : after - 1]
        if b"\0" in key or (b"\0" in value and key in (b"path", b"linkpath")):
            raise InvalidArchive(f"PAX record {shown(key)}: holds a NUL")
        records.append((key, value))
        if len(records) > RECORDS_MAX:
            raise BudgetExceeded(f"PAX header of more than {RECORDS_MAX} records")
        position = after
    return records


def apply(records: Iterable[tuple[bytes, bytes]], member: Member) -> bool:
    """Change *member* as *records* say; the last record of a key counts, unknown keys mean nothing.

    An empty value takes back what records before it said, so that the header counts (POSIX, Go); but an xattr
    may well be empty. Sparse keys are left to `layer.sparse`; says
    whether there are any. Raises InvalidArchive.
    """
    libarchive: dict[bytes, bytes] = {}
    file_type = None
    is_sparse = False
    for key, value in dict(records).items():
        if key in _IGNORED:
            continue
        if key in _CHANGES:
            if value:
                _CHANGES[key](member, value)
        elif key == _FILE_TYPE:
            file_type = value
        elif key.startswith(_SCHILY):
            member.xattrs = member.xattrs or {}
            member.xattrs[key[len(_SCHILY) :]] = value
        elif key.startswith(_LIBARCHIVE):
            name, content = _from_libarchive(key, value)
            libarchive[name] = content
        elif key.startswith(SPARSE):
            is_sparse = True
    if file_type == b"socket":
        member.type = Type.SOCKET
    if libarchive:
        # Where both forms name an attribute, they come from one tool and are equal.
        member.xattrs = libarchive | (member.xattrs or {})
    return is_sparse


def _change_mtime(member: Member, value: bytes) -> None:
    try:
        member.mtime_ns = timestamp(value)
    except InvalidArchive as exc:
        raise InvalidArchive(f"{shown(member.name)}: PAX mtime: {exc}") from None


def _change_path(member: Member, value: bytes) -> None:
    member.name = value


def _change_link(member: Member, value: bytes) -> None:
    member.link = value


def _change_size(member: Member, value: bytes) -> None:
    member.size = member.stored = _size(value, member.name)


def _change_uid(member: Member, value: bytes) -> None:
    member.uid = _owner(value, "uid", member.name)


def _change_gid(member: Member, value: bytes) -> None:
    member.gid = _owner(value, "gid", member.name)


_CHANGES: Final[dict[bytes, Callable[[Member, bytes], None]]] = {
    b"mtime": _change_mtime,
    b"path": _change_path,
    b"linkpath": _change_link,
    b"size": _change_size,
    b"uid": _change_uid,
    b"gid": _change_gid,
}


def _size(value: bytes, name: bytes) -> int:
    size = decimal(value, f"{shown(name)}: PAX size")
    if size >= 1 << 63:
        raise InvalidArchive(f"{shown(name)}: PAX size {size} (expected less than 2^63)")
    return size


def _owner(value: bytes, key: str, name: bytes) -> int:
    number = decimal(value.removeprefix(b"-"), f"{shown(name)}: PAX {key}")
    return check_owner(-number if value.startswith(b"-") else number, name)


def check_owner(number: int, name: bytes) -> int:
    """Return *number* if it can be a user or a group. Raises InvalidArchive.

    A negative one is what the kernel makes of it, as in Go and GNU tar: -2 is the nobody of old systems.
    """
    unsigned = number + (1 << 32) if -(1 << 31) <= number < 0 else number
    if not 0 <= unsigned <= _OWNER_MAX:
        raise InvalidArchive(f"{shown(name)}: owner {number} (expected 0 to {_OWNER_MAX})")
    return unsigned


def _from_libarchive(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Names are percent-encoded, values base64 without padding."""
    name = _PERCENT.sub(lambda match: bytes.fromhex(match[1].decode()), key[len(_LIBARCHIVE) :])
    digits = value.rstrip(b"=")
    try:
        return name, binascii.a2b_base64(digits + b"=" * (-len(digits) % 4), strict_mode=True)
    except binascii.Error:
        raise InvalidArchive(f"PAX record {shown(key)}: the value is not base64") from None
