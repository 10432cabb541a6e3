"""The ways in which archives write one and the same member, by tools of half a century.

A `Described` member is spelled by a function of `SPELLINGS`, which changes how it will be written, and says
whether it could: only links have a link to spell. `ENDS` are the ways in which archives end. Imports nothing
of layerfs.
"""

import base64
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.support.rawtar import (
    DIRECTORY,
    END,
    FILE,
    HARDLINK,
    SYMLINK,
    Number,
    base256,
    gnu_long,
    header,
    member,
    padded,
    pax,
)

USTAR: Final = b"ustar\x0000"
GNU: Final = b"ustar  \x00"
V7: Final = bytes(8)
_LINKS: Final = (HARDLINK, SYMLINK)


@dataclass(slots=True)
class Described:
    """One member, before it is written."""

    name: bytes
    type: bytes
    content: bytes = b""
    link: bytes = b""
    fields: dict[str, Number] = field(default_factory=dict)
    """Of the header, beside name, type and link."""
    records: list[tuple[bytes, bytes]] = field(default_factory=list)
    """For an extended header in front."""
    front: list[bytes] = field(default_factory=list)
    """Other blocks in front."""
    extended: bytes = b"x"
    """Type of the extended header."""
    map: bytes = b""
    """Blocks between header and content."""
    path: bytes = b""
    """Where it stands when it is extracted, and below as what, however it is spelled."""
    kind: bytes = b""

    def __post_init__(self) -> None:
        self.path, self.kind = self.path or self.name, self.kind or self.type

    def written(self) -> bytes:
        """Return the bytes; what has no room in the header goes in front, as GNU tar writes it."""
        front = list(self.front)
        if self.records:
            front.append(pax(self.records, self.extended))
        if len(self.name) > 100 and b"path" not in dict(self.records):
            front.append(gnu_long(self.name))
        if len(self.link) > 100 and b"linkpath" not in dict(self.records):
            front.append(gnu_long(self.link, b"K"))
        defaults: dict[str, Number] = {"size": len(self.content), "link": self.link[:100]}
        return (
            b"".join(front)
            + header(self.name[:100], self.type, **(defaults | self.fields))
            + self.map
            + padded(self.content)
        )


Spell = Callable[[Described, random.Random], bool]


def _v7(made: Described, _: random.Random) -> bool:
    if made.type not in (FILE, *_LINKS) or made.name.endswith(b"/"):
        return False
    made.fields["magic"] = V7
    if made.type == FILE:
        made.type = b"\0"
    return True


def _v7_directory(made: Described, _: random.Random) -> bool:
    if made.type != DIRECTORY or not made.name.endswith(b"/"):
        return False
    made.fields["magic"] = V7
    made.type = b"\0"
    return True


def _gnu_name(made: Described, _: random.Random) -> bool:
    made.front.append(gnu_long(made.name))
    made.fields["magic"] = GNU
    made.name = made.name[:50] if len(made.name) > 100 else made.name
    return len(made.name) <= 100


def _gnu_link(made: Described, _: random.Random) -> bool:
    if made.type not in _LINKS:
        return False
    made.front.append(gnu_long(made.link, b"K"))
    made.link = b"cut"
    made.fields["magic"] = GNU
    return True


def _pax_path(made: Described, _: random.Random) -> bool:
    made.records.append((b"path", made.name))
    made.name = b"cut"
    return True


def _pax_link(made: Described, _: random.Random) -> bool:
    if made.type not in _LINKS:
        return False
    made.records.append((b"linkpath", made.link))
    made.link = b"cut"
    return True


def _prefix(made: Described, _: random.Random) -> bool:
    prefix, slash, name = made.name.rstrip(b"/").partition(b"/")
    if not slash or len(name) > 99:
        return False
    made.fields |= {"magic": USTAR, "prefix": prefix[:155]}
    made.name = name + b"/" * made.name.endswith(b"/")
    return len(prefix) <= 155


def _pax_size(made: Described, _: random.Random) -> bool:
    made.records.append((b"size", b"%d" % len(made.content)))
    made.fields["size"] = 0
    return made.type == FILE


def _pax_time(made: Described, draw: random.Random) -> bool:
    text = draw.choice(
        (b"1.5", b"1700000000.123456789", b"7.1234567899", b"0000000012.", b"-7", b"0.000000001")
    )
    made.records.append((b"mtime", text))
    return True


def _pax_negative_fraction(made: Described, draw: random.Random) -> bool:
    made.records.append((b"mtime", draw.choice((b"-1.75", b"-0.5"))))
    return True


def _pax_owner(made: Described, draw: random.Random) -> bool:
    made.records += [(b"uid", draw.choice((b"0000001000", b"4294967294"))), (b"gid", b"3000000")]
    return True


def _pax_minus_two(made: Described, _: random.Random) -> bool:
    made.records.append((b"uid", b"-2"))
    return True


def _repeated(made: Described, draw: random.Random) -> bool:
    made.records += [(b"mtime", b"%d" % draw.randrange(99)) for _ in range(2)]
    if made.type in _LINKS:
        made.records += [(b"linkpath", b"evil"), (b"linkpath", made.link)]
    made.records += [(b"path", b"evil"), (b"path", made.name)]
    return True


def _empty(made: Described, draw: random.Random) -> bool:
    made.records += [(key, b"") for key in (b"uid", b"gid", b"mtime", b"path") if draw.random() < 0.7]
    return bool(made.records) and len(made.name) <= 100


def _taken_back(made: Described, _: random.Random) -> bool:
    made.records += [(b"path", b"evil"), (b"mtime", b"3"), (b"path", b""), (b"mtime", b"")]
    return len(made.name) <= 100


def _meaningless(made: Described, _: random.Random) -> bool:
    made.records += [(b"comment", b"a=b\nc"), (b"VENDOR.key", b"\xff"), (b"atime", b"1.5"), (b"ctime", b"2")]
    return True


def _xattrs(made: Described, draw: random.Random) -> bool:
    made.records.append((b"SCHILY.xattr.user.a", draw.choice((b"one", b"\0\xff\n=", b"x" * 300))))
    return made.type in (FILE, DIRECTORY)


def _libarchive_xattrs(made: Described, draw: random.Random) -> bool:
    value = draw.choice((b"one", b"\0\xff", b"12", b"four"))
    made.records.append((b"LIBARCHIVE.xattr.user.b%20c", base64.b64encode(value).rstrip(b"=")))
    return made.type in (FILE, DIRECTORY)


def _empty_xattr(made: Described, _: random.Random) -> bool:
    made.records.append((b"SCHILY.xattr.user.empty", b""))
    return made.type in (FILE, DIRECTORY)


def _base256(made: Described, draw: random.Random) -> bool:
    size = made.fields.get("size", len(made.content))
    assert isinstance(size, int)
    values = {
        "uid": draw.choice((5, 2_097_152, 4_294_967_294)),
        "gid": 7,
        "size": size,
        "mtime": 9_000_000_000,
    }
    made.fields |= {
        key: base256(value, 12 if key in ("size", "mtime") else 8) for key, value in values.items()
    }
    return True


def _before_1970(made: Described, draw: random.Random) -> bool:
    made.fields["mtime"] = base256(-draw.choice((1, 5, 86_400_000)), 12)
    return True


def _minus_two(made: Described, _: random.Random) -> bool:
    made.fields["uid"] = base256(-2, 8)
    return True


def _leading(made: Described, pad: bytes) -> bool:
    for key, length in (("mode", 8), ("uid", 8), ("gid", 8), ("mtime", 12)):
        value = made.fields.get(key, 0)
        if isinstance(value, int):
            made.fields[key] = (b"%o\0" % value).rjust(length, pad)[-length:]
    return True


def _leading_nuls(made: Described, _: random.Random) -> bool:
    return _leading(made, b"\0")


def _leading_spaces(made: Described, _: random.Random) -> bool:
    return _leading(made, b" ")


def _unended(made: Described, _: random.Random) -> bool:
    value = made.fields.get("uid", 0)
    made.fields |= {"mode": b"%08o" % 0o640, "uid": b"%08o" % (value if isinstance(value, int) else 3)}
    made.fields["mtime"] = b"%012o" % 1_000_000_000
    return True


def _left_aligned(made: Described, _: random.Random) -> bool:
    made.fields |= {"mode": b"640 \0", "uid": b"12\0", "gid": b"13 ", "mtime": b"7346545000 "}
    return True


def _empty_numbers(made: Described, draw: random.Random) -> bool:
    blank = draw.choice((b"", b" " * 8))
    made.fields |= {"uid": blank, "gid": blank, "mtime": blank}
    return True


def _type_bits(made: Described, _: random.Random) -> bool:
    mode, bits = made.fields.get("mode"), {FILE: 0o100000, DIRECTORY: 0o40000, SYMLINK: 0o120000}
    if made.type not in bits or not isinstance(mode, int):
        return False
    made.fields["mode"] = mode | bits[made.type]
    return True


def _contiguous(made: Described, _: random.Random) -> bool:
    made.type = b"7" if made.type == FILE else made.type
    return made.type == b"7"


def _solaris(made: Described, _: random.Random) -> bool:
    made.records.append((b"mtime", b"5.25"))
    made.extended = b"X"
    return True


def _owner_names(made: Described, _: random.Random) -> bool:
    made.fields |= {"uname": b"daemon", "gname": b"nobody-of-that-name"}
    made.records.append((b"uname", b"root"))
    return True


def _size_of_link(made: Described, _: random.Random) -> bool:
    made.fields["size"] = 700
    return made.type == SYMLINK


def _size_of_hardlink(made: Described, _: random.Random) -> bool:
    made.fields["size"] = 700
    return made.type == HARDLINK


def _renamed(before: bytes, after: bytes, count: int = -1) -> Spell:
    def spell(made: Described, _: random.Random) -> bool:
        changed = made.name.replace(before, after, count) if before else after + made.name
        spelled, made.name = changed != made.name and len(changed) <= 100, changed
        return spelled

    return spell


def _slash_behind(made: Described, _: random.Random) -> bool:
    made.name += b"/"
    return made.type == FILE and len(made.name) <= 100


def _signed_checksum(made: Described, _: random.Random) -> bool:
    if (
        max(made.name[:100]) < 0x80
        or made.records
        or made.front
        or len(made.name) > 100
        or len(made.link) > 100
    ):
        return False
    block = made.written()[:512]
    others = block[:148] + block[156:]
    made.fields["checksum"] = sum(others) + 256 - 256 * sum(byte >> 7 for byte in others)
    return True


def _other_checksum(made: Described, draw: random.Random) -> bool:
    if made.records or made.front or len(made.name) > 100 or len(made.link) > 100:
        return False
    block = made.written()[:512]
    total = sum(block[:148] + block[156:]) + 256
    made.fields["checksum"] = draw.choice((b"%o\0", b"%6o\0 ", b"%07o\0", b"%o  ", b"  %o")) % total
    return True


def _volume(made: Described, _: random.Random) -> bool:
    made.front.insert(0, member(b"label", type=b"V", magic=GNU))
    return True


SPELLINGS: Final[Mapping[str, Spell]] = {
    "a v7 header": _v7,
    "a v7 directory": _v7_directory,
    "a GNU long name": _gnu_name,
    "a GNU long link": _gnu_link,
    "a PAX path": _pax_path,
    "a PAX linkpath": _pax_link,
    "a prefix": _prefix,
    "a PAX size": _pax_size,
    "a PAX time": _pax_time,
    "a PAX time with a negative fraction": _pax_negative_fraction,
    "PAX owners": _pax_owner,
    "PAX uid -2": _pax_minus_two,
    "repeated PAX records": _repeated,
    "empty PAX records": _empty,
    "PAX records taken back": _taken_back,
    "PAX records without a meaning": _meaningless,
    "xattrs": _xattrs,
    "xattrs as libarchive writes them": _libarchive_xattrs,
    "an empty xattr": _empty_xattr,
    "base-256 numbers": _base256,
    "a time before 1970": _before_1970,
    "base-256 uid -2": _minus_two,
    "NULs in front of numbers": _leading_nuls,
    "spaces in front of numbers": _leading_spaces,
    "numbers without an end": _unended,
    "numbers at the left": _left_aligned,
    "empty numbers": _empty_numbers,
    "type bits in the mode": _type_bits,
    "type 7": _contiguous,
    "a Solaris header": _solaris,
    "names of owners": _owner_names,
    "a size on a symlink": _size_of_link,
    "a size on a hard link": _size_of_hardlink,
    "./ in front": _renamed(b"", b"./"),
    "/ in front": _renamed(b"", b"/"),
    "// inside": _renamed(b"/", b"//"),
    "/./ inside": _renamed(b"/", b"/./"),
    "a slash behind a file's name": _slash_behind,
    "a signed checksum": _signed_checksum,
    "a checksum in another form": _other_checksum,
    "a volume label": _volume,
}

_LAST: Final = header(b"after the end", FILE)
ENDS: Final[Mapping[str, bytes]] = {
    "two blocks of zeros": END,
    "a record of zeros": bytes(10_240),
    "no end": b"",
    "one block of zeros": bytes(512),
    "text behind the end": END + b"text" * 300,
    "another archive behind the end": END + _LAST + END,
    "an extended header at the end": pax([(b"path", b"nothing")]) + END,
    "a long name at the end": gnu_long(b"n" * 120) + END,
    "a block of zeros inside": bytes(512) + _LAST + END,
    "a block that is no header": b"text" * 128 + END,
}
