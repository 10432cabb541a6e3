"""Members to archive headers: ustar where it suffices, PAX records for the rest. The reverse of `layer.tar`.

Pure: the same member always gives the same bytes. Format: POSIX.1-2017 pax, "ustar Interchange Format" and
"pax Extended Header"; xattrs as star and GNU tar write them.
"""

from typing import Final

from layerfs.layer.member import Member, Type
from layerfs.layer.numbers import SECOND
from layerfs.layer.tar import BLOCK

END: Final = bytes(2 * BLOCK)
"""Ends an archive."""

_TYPES: Final = {
    Type.FILE: b"0", Type.HARDLINK: b"1", Type.SYMLINK: b"2", Type.CHARACTER: b"3", Type.BLOCK: b"4",
    Type.DIRECTORY: b"5", Type.FIFO: b"6",
}  # fmt: skip
_NAME: Final = 100
_PREFIX: Final = 155
_OCTAL_7: Final = 0o7777777
_OCTAL_11: Final = 0o77777777777
_PAX_NAME: Final = b"PaxHeaders/member"


def padding(size: int) -> bytes:
    """Return what follows a content of *size* bytes."""
    return bytes(-size % BLOCK)


def header(member: Member) -> bytes:
    """Return the blocks that stand before the content of *member*. Raises KeyError for a socket."""
    records = _records(member)
    block = _block(member, _TYPES[member.type])
    if not records:
        return block
    body = b"".join(_record(key, value) for key, value in records)
    front = Member(_PAX_NAME, Type.FILE, 0o644, 0, 0, 0, len(body), len(body))
    return _block(front, b"x") + body + padding(len(body)) + block


def _records(member: Member) -> list[tuple[bytes, bytes]]:
    """Return what a plain header cannot say."""
    records: list[tuple[bytes, bytes]] = []
    if _place(member.name) is None:
        records.append((b"path", member.name))
    if len(member.link) > _NAME:
        records.append((b"linkpath", member.link))
    if not all(_is_utf8(value) for _, value in records):
        records.insert(0, (b"hdrcharset", b"BINARY"))
    for key, value, limit in (
        (b"size", member.size, _OCTAL_11),
        (b"uid", member.uid, _OCTAL_7),
        (b"gid", member.gid, _OCTAL_7),
    ):
        if value > limit:
            records.append((key, b"%d" % value))
    seconds, fraction = divmod(member.mtime_ns, SECOND)
    if fraction or not 0 <= seconds <= _OCTAL_11:
        records.append((b"mtime", _time(member.mtime_ns)))
    records += [(b"SCHILY.xattr." + key, value) for key, value in sorted((member.xattrs or {}).items())]
    return records


def _block(member: Member, kind: bytes) -> bytes:
    prefix, name = _place(member.name) or (b"", member.name[:_NAME])
    seconds = member.mtime_ns // SECOND
    fields = (
        name.ljust(_NAME, b"\0"),
        _octal(member.mode, 8),
        _octal(member.uid if member.uid <= _OCTAL_7 else 0, 8),
        _octal(member.gid if member.gid <= _OCTAL_7 else 0, 8),
        _octal(member.size if member.size <= _OCTAL_11 else 0, 12),
        _octal(seconds if 0 <= seconds <= _OCTAL_11 else 0, 12),
        b" " * 8,
        kind,
        member.link[:_NAME].ljust(_NAME, b"\0"),
        b"ustar\00000",
        bytes(64),  # no names of owners: they mean nothing elsewhere
        _octal(member.major, 8),
        _octal(member.minor, 8),
        prefix.ljust(_PREFIX, b"\0"),
        bytes(12),
    )
    block = b"".join(fields)
    return b"%s%06o\0 %s" % (block[:148], sum(block), block[156:])


def _place(name: bytes) -> tuple[bytes, bytes] | None:
    """Split *name* into prefix and name; None if it fits nowhere.

    Bytes beyond ASCII stay as they are, which all tools read: a PAX path would have to be UTF-8.
    """
    if len(name) <= _NAME:
        return b"", name
    slash = name.find(b"/", len(name) - _NAME - 1, -1)
    if 0 < slash <= _PREFIX:
        return name[:slash], name[slash + 1 :]
    return None


def _octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)  # a device number of Linux has 12 and 20 bits, and fits


def _time(nanoseconds: int) -> bytes:
    seconds, fraction = divmod(abs(nanoseconds), SECOND)
    sign = b"-" if nanoseconds < 0 else b""
    text = b"%s%d.%09d" % (sign, seconds, fraction)
    return text.rstrip(b"0").rstrip(b".")


def _record(key: bytes, value: bytes) -> bytes:
    """Return ``<length> <key>=<value>``, the length counting its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
