"""Builds tar archives field by field, also such as no tool would write. Imports nothing of layerfs.

`header` makes one block and takes any bytes for any field; `member` adds content and padding; `pax` and
`gnu_long` make what stands in front of a member; `archive` puts parts together and ends them.
"""

from collections.abc import Iterable, Mapping

BLOCK = 512
END = bytes(2 * BLOCK)

FILE, HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (b"%d" % kind for kind in range(7))

Number = int | bytes
"""A number, or the bytes of the field as they are."""

_FIELDS: Mapping[str, tuple[int, int]] = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "type": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "uname": (265, 32),
    "gname": (297, 32),
    "major": (329, 8),
    "minor": (337, 8),
    "prefix": (345, 155),
    "sparse": (386, 109),
}
_CHECKSUM = slice(148, 156)


def header(name: bytes, type: bytes = FILE, *, checksum: Number | None = None, **fields: Number) -> bytes:
    """Return one header block; *fields* are named as in `_FIELDS`, the checksum is right unless given."""
    values: dict[str, Number] = {
        "mode": 0o755 if type == DIRECTORY else 0o644,
        "uid": 0,
        "gid": 0,
        "size": 0,
        "mtime": 1_700_000_000,
        "magic": b"ustar\x0000",
        "major": 0,
        "minor": 0,
    }
    block = bytearray(BLOCK)
    for field, value in (values | fields | {"name": name, "type": type}).items():
        offset, length = _FIELDS[field]
        text = octal(value, length) if isinstance(value, int) else value
        if len(text) > length:
            raise ValueError(f"{field}: {text!r} has no room (expected at most {length} bytes)")
        block[offset : offset + len(text)] = text
    block[_CHECKSUM] = b" " * 8
    total = sum(block) if checksum is None else checksum
    block[_CHECKSUM] = b"%06o\0 " % total if isinstance(total, int) else total.ljust(8, b"\0")
    return bytes(block)


def numbered(before: bytes, count: int, after: bytes = b"") -> bytes:
    """Return the headers of *count* empty files whose names differ in seven digits, quickly."""
    block = header(before + b"0000000" + after)
    total = int(block[148:154], 8) - 7 * 0x30
    start, name_end = block[: len(before)], len(before) + 7
    middle, end = block[name_end : _CHECKSUM.start], block[_CHECKSUM.stop :]
    names = (b"%07d" % number for number in range(count))
    return b"".join(b"%b%b%b%06o\0 %b" % (start, name, middle, total + sum(name), end) for name in names)


def octal(value: int, length: int) -> bytes:
    """Write a number as the standard does."""
    return b"%0*o\0" % (length - 1, value)


def base256(value: int, length: int) -> bytes:
    """Write a number as GNU tar does where octal has no room; negative ones, too."""
    mark = 0x80 << (8 * (length - 1))
    return (value & ((1 << (8 * length)) - 1) | mark).to_bytes(length, "big")


def padded(content: bytes) -> bytes:
    """Return *content* filled up with zeros to whole blocks."""
    return content + bytes(-len(content) % BLOCK)


def member(name: bytes, content: bytes = b"", type: bytes = FILE, **fields: Number) -> bytes:
    """Return one member with its content; *fields* may claim another size."""
    return header(name, type, **({"size": len(content)} | fields)) + padded(content)


def record(key: bytes, value: bytes) -> bytes:
    """Return one PAX record; its length counts its own digits."""
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %b=%b\n" % (length, key, value)


def pax(records: bytes | Iterable[tuple[bytes, bytes]], type: bytes = b"x") -> bytes:
    """Return an extended header, of *records* or of a body as it is."""
    body = records if isinstance(records, bytes) else b"".join(record(*pair) for pair in records)
    return member(b"PaxHeaders/x", body, type)


def gnu_long(text: bytes, type: bytes = b"L") -> bytes:
    """Return GNU tar's long name (``L``) or long link (``K``) for the member that follows."""
    return member(b"././@LongLink", text + b"\0", type)


def archive(*parts: bytes) -> bytes:
    """Return *parts* and the end mark."""
    return b"".join(parts) + END
