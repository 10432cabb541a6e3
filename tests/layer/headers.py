"""Archives made byte by byte, also wrong ones; and a source to read them from without any process."""

from typing import Any

from layerfs.errors import InvalidArchive
from layerfs.layer.budgets import Budgets
from layerfs.layer.member import Member
from layerfs.layer.tar import TarReader

END = bytes(1024)
USTAR = b"ustar\x0000"
GNU = b"ustar  \x00"
V7 = bytes(8)


def header(
    name: bytes = b"file",
    type: bytes = b"0",
    size: int | bytes = 0,
    *,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 1_700_000_000,
    link: bytes = b"",
    major: int | bytes = 0,
    minor: int | bytes = 0,
    prefix: bytes = b"",
    magic: bytes = USTAR,
    checksum: bytes | None = None,
    tail: bytes = b"",
) -> bytes:
    """Return one block; numbers given as bytes stand there as they are, *tail* is the text from 386 on."""
    block = bytearray(512)
    for at, text in (
        (0, name[:100]), (100, octal(mode, 8)), (108, octal(uid, 8)), (116, octal(gid, 8)),
        (124, octal(size, 12)), (136, octal(mtime, 12)), (148, b" " * 8), (156, type), (157, link[:100]),
        (257, magic), (329, octal(major, 8)), (337, octal(minor, 8)), (345, prefix[:155]),
    ):  # fmt: skip
        block[at : at + len(text)] = text
    if tail:
        block[386 : 386 + len(tail)] = tail
    block[148:156] = b"%06o\x00 " % sum(block) if checksum is None else checksum.ljust(8, b"\0")
    return bytes(block)


def octal(number: int | bytes, width: int) -> bytes:
    """Write a numeric field, in base-256 where octal has no room or no sign."""
    if isinstance(number, bytes):
        return number.ljust(width, b"\0")
    text = b"%0*o" % (width - 1, number)
    return text + b"\0" if number >= 0 and len(text) < width else base256(number, width)


def base256(number: int, width: int) -> bytes:
    """Write a number as GNU tar does where octal fails."""
    mark = 0xFF << 8 * (width - 1) if number < 0 else 0x80 << 8 * (width - 1)
    value = number & ((1 << 8 * (width - 1)) - 1)
    return (mark | value).to_bytes(width, "big")


def padded(content: bytes) -> bytes:
    """Return *content* filled up to whole blocks."""
    return content + bytes(-len(content) % 512)


def member(content: bytes = b"", **fields: Any) -> bytes:
    """Return header and content of one member."""
    return header(size=len(content), **fields) + padded(content)


def pax(*records: tuple[bytes, bytes], type: bytes = b"x") -> bytes:
    """Return an extended header."""
    return member(b"".join(record(*pair) for pair in records), name=b"PaxHeaders/file", type=type)


def record(key: bytes, value: bytes) -> bytes:
    """Return one record, whose length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def long_name(name: bytes, type: bytes = b"L") -> bytes:
    """Return GNU's header for a long name or link."""
    return member(name + b"\0", name=b"././@LongLink", type=type, magic=GNU)


class BytesSource:
    """An archive in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def block(self) -> bytes:
        block = self._data[self._at : self._at + 512]
        if block and len(block) < 512:
            raise InvalidArchive("truncated")
        self._at += len(block)
        return block

    def read(self, size: int) -> bytes:
        content = self._data[self._at : self._at + size]
        self._at += size + -size % 512
        if len(content) < size:
            raise InvalidArchive("truncated")
        return content


def read(data: bytes, budgets: Budgets | None = None) -> tuple[list[Member], list[str]]:
    """Return all members of an archive, and the reader's warnings."""
    source = BytesSource(data)
    reader = TarReader(source, budgets or Budgets())
    members = []
    while (found := reader.next()) is not None:
        source.read(found.stored)
        members.append(found)
    return members, reader.warnings


def read_one(data: bytes) -> Member:
    """Return the only member of an archive without its end mark."""
    (found,), _ = read(data + END)
    return found
