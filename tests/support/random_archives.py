"""Random archives, field by field, of all that the tools of the field write or wrote.

`random_archive(number)` returns the same bytes each time. It has a handful of members over few names, so that
they meet. Each is plain, spelled in one of the ways of `spellings`, or of a rare sort. `shapes` says which: a
difference between two readers can be traced to them. Imports nothing of layerfs.
"""

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from stat import S_ISGID
from typing import Final

from tests.support.rawtar import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    HARDLINK,
    SYMLINK,
    Number,
    octal,
    padded,
    pax,
)
from tests.support.spellings import ENDS, GNU, SPELLINGS, USTAR, Described

_NAMES: Final = (b"a", b"b", b"c", b"d e", b"\xff\xfe", b"x" * 101, b"\xc3\xa9", b".hidden", b"y" * 255)
_TARGETS: Final = (b"a", b"../b", b"/etc/a", b"nowhere", b".", b"t" * 150, b"\xff")
_TIMES: Final = (1_700_000_000, 0, 1, 8_589_934_591)
_OWNERS: Final = (0, 1, 1000, 65_534, 2_097_151)
_MODES: Final = (0o644, 0o755, 0o600, 0o4755, 0o1777, 0o444, 0o2711, 0o7777)
_SIZES: Final = (0, 1, 100, 511, 512, 513, 1500)
_PLAIN: Final = (FILE, FILE, FILE, DIRECTORY, DIRECTORY, SYMLINK, HARDLINK, FIFO, CHARACTER, BLOCK_DEVICE)
_TRIES: Final = 30
"""Members that are drawn until one can be spelled as wanted."""
_WORDS: Final = {DIRECTORY: "a directory", SYMLINK: "a symlink"}


@dataclass(frozen=True, slots=True)
class RandomArchive:
    """An archive, and what is unusual in it."""

    number: int
    content: bytes
    shapes: frozenset[str]


def random_archive(number: int) -> RandomArchive:
    """Return random archive *number*. In turn, each shape is in one, whatever else is."""
    draw = random.Random(number)
    shapes = [*RARE, *SPELLINGS, *ENDS]
    wanted = shapes[number % len(shapes)]
    writer = _Writer(draw)
    if draw.random() < 0.6:
        writer.add(writer.described(b"./", DIRECTORY))
    if draw.random() < 0.03:
        writer.add_global()
    before = draw.randint(0, 2)
    for _ in range(before):
        writer.add_any()
    writer.add_shape(wanted)
    for _ in range(draw.randint(0, 3)):
        writer.add_any()
    end = (
        wanted if wanted in ENDS else draw.choice([*ENDS]) if draw.random() < 0.05 else "two blocks of zeros"
    )
    writer.shapes.add(end)
    return RandomArchive(number, b"".join(writer.parts) + ENDS[end], frozenset(writer.shapes))


class _Writer:
    """Draws the members of one archive, and knows what stands where when they are extracted."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.shapes: set[str] = set()
        self.parts: list[bytes] = []
        self.kinds: dict[bytes, bytes] = {}
        """Types of what is there, by path."""

    def add_global(self) -> None:
        """Add a global header."""
        self.shapes.add("a global PAX header")
        record = self.draw.choice(((b"mtime", b"1234567890"), (b"uid", b"77"), (b"gid", b"78")))
        self.parts.append(pax([(b"comment", b"made at random"), record], b"g"))

    def add_shape(self, name: str) -> None:
        """Add a member that has this shape, unless it is one of the end."""
        if name in RARE:
            self.shapes.add(name)
            self.add(RARE[name](self))
        for _ in range(_TRIES if name in SPELLINGS else 0):
            known = set(self.shapes)
            made = self.described(self.new_path(), self.draw.choice(_PLAIN))
            if SPELLINGS[name](made, self.draw):
                self.shapes.add(name)
                self.add(made)
                return
            self.shapes = known

    def add_any(self) -> None:
        """Draw one member and how it is spelled, and add it."""
        draw = self.draw
        chance = draw.random()
        if chance < 0.05:
            self.add_shape(draw.choice([*RARE]))
            return
        if chance < 0.2 and self._unmarked():
            made = self._again()
        else:
            made = self.described(self.new_path(), draw.choice(_PLAIN))
        self.add(self._spelled(made) if draw.random() < 0.3 else made)

    def _spelled(self, made: Described) -> Described:
        """Return *made* in one of the spellings that it can have."""
        for name in self.draw.sample([*SPELLINGS], 8):
            spelled = copy.deepcopy(made)
            if SPELLINGS[name](spelled, self.draw):
                self.shapes.add(name)
                return spelled
        return made

    def add(self, made: Described) -> None:
        """Add a member as it is."""
        self._settle(made)
        self.parts.append(made.written())

    def described(self, path: bytes, type_: bytes) -> Described:
        """Draw the attributes of a member of this type."""
        draw = self.draw
        fields: dict[str, Number] = {
            "mode": draw.choice(_MODES),
            "uid": draw.choice(_OWNERS),
            "gid": draw.choice(_OWNERS),
            "mtime": draw.choice(_TIMES),
            "magic": draw.choice((USTAR, USTAR, GNU)),
        }
        made = Described(path, type_, fields=fields)
        if type_ == FILE:
            made.content = draw.randbytes(draw.choice(_SIZES))
        elif type_ == SYMLINK:
            made.link, fields["mode"] = draw.choice(_TARGETS), 0o777
        elif type_ == HARDLINK:
            targets = [
                at for at in self._unmarked() if self.kinds[at] in (FILE, FIFO, SYMLINK) and at != path
            ]
            if not targets:
                return self.described(path, FILE)
            made.link = draw.choice(targets)
        elif type_ in (CHARACTER, BLOCK_DEVICE):
            fields |= {"major": draw.choice((1, 7, 511)), "minor": draw.choice((3, 5, 300))}
        elif type_ == DIRECTORY:
            self._describe_directory(made)
        return made

    def _describe_directory(self, made: Described) -> None:
        mode = made.fields["mode"]
        assert isinstance(mode, int)
        if mode & S_ISGID:
            if self.draw.random() < 0.7:
                made.fields["mode"] = mode & ~S_ISGID
            else:
                self.shapes.add("a setgid directory")
        if self.draw.random() < 0.7 and not made.name.endswith(b"/"):
            made.name += b"/"

    def new_path(self) -> bytes:
        """Draw a path that is free, now and then in a directory that is not there."""
        draw = self.draw
        directory = draw.choice(self.directories())
        if draw.random() < 0.1:
            implied = _join(directory, draw.choice(_NAMES[:4]))
            if implied not in self.kinds:
                directory = implied
        free = [name for name in _NAMES if _join(directory, name) not in self.kinds]
        return _join(directory, draw.choice(free or [b"z%d" % draw.randrange(1000)]))

    def directories(self) -> list[bytes]:
        """Return the directories that there are, no markers, the root first."""
        return [b"", *(at for at in self._unmarked() if self.kinds[at] == DIRECTORY)]

    def _unmarked(self) -> list[bytes]:
        return [path for path in sorted(self.kinds) if b".wh." not in path]

    def _again(self) -> Described:
        """Draw a member whose name is taken."""
        path = self.draw.choice(self._unmarked())
        type_ = self.draw.choice(_PLAIN)
        before = self.kinds[path]
        made = self.described(path, type_)
        if made.link == path or (before == DIRECTORY and made.link.startswith(path + b"/")):
            made = self.described(path, FILE)
        full = any(other.startswith(path + b"/") for other in self.kinds)
        old = _WORDS.get(before, "a file") + (" with content" if full else "")
        self.shapes.add(f"{old}, then {_WORDS.get(made.type, 'a file')}")
        return made

    def _settle(self, made: Described) -> None:
        path, kind = made.path.strip(b"/"), made.kind
        if path in (b"", b"."):
            return
        if kind == HARDLINK:
            kind = self.kinds.get(made.link, FILE)
        if kind != DIRECTORY:
            for below in [other for other in self.kinds if other.startswith(path + b"/")]:
                del self.kinds[below]
        while path:
            self.kinds[path], kind = kind, DIRECTORY
            path = path.rpartition(b"/")[0]


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


# Rare members

_SPARSE_SIZE: Final = 40_000


def _pieces(writer: _Writer, most: int) -> tuple[list[tuple[int, int]], bytes]:
    """Draw where the pieces of a sparse file lie, and their bytes; GNU tar finds whole blocks."""
    draw = writer.draw
    starts = sorted(draw.sample(range(_SPARSE_SIZE // 512), draw.randint(0, most)))
    lengths = [512] * len(starts)
    if starts and draw.random() < 0.2:
        lengths[0] = 100
        writer.shapes.add("a sparse file of broken blocks")
    pieces = [(512 * start, length) for start, length in zip(starts, lengths, strict=True)]
    if draw.random() < 0.5:
        pieces.append((_SPARSE_SIZE - 64, 64))
    else:
        pieces.append((_SPARSE_SIZE, 0))  # how GNU tar says that a hole ends the file
    return pieces, draw.randbytes(sum(length for _, length in pieces))


def _gnu_sparse(writer: _Writer) -> Described:
    made = writer.described(writer.new_path(), FILE)
    pieces, made.content = _pieces(writer, 40)
    pairs = [octal(offset, 12) + octal(length, 12) for offset, length in pieces]
    first, rest = pairs[:4], pairs[4:]
    made.type = b"S"
    is_more = bytes([bool(rest)])
    sparse = b"".join(first).ljust(96, b"\0") + is_more + octal(_SPARSE_SIZE, 12)
    made.fields |= {"magic": GNU, "sparse": sparse}
    while rest:
        block, rest = rest[:21], rest[21:]
        made.map += b"".join(block).ljust(504, b"\0") + bytes([bool(rest)]).ljust(8, b"\0")
    return made


def _pax_sparse_00(writer: _Writer) -> Described:
    made = writer.described(writer.new_path(), FILE)
    made.fields["magic"] = USTAR
    pieces, made.content = _pieces(writer, 6)
    made.records += [
        (b"GNU.sparse.size", b"%d" % _SPARSE_SIZE),
        (b"GNU.sparse.numblocks", b"%d" % len(pieces)),
    ]
    for offset, length in pieces:
        made.records += [(b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length)]
    return made


def _pax_sparse_01(writer: _Writer) -> Described:
    made = writer.described(writer.new_path(), FILE)
    made.fields["magic"] = USTAR
    pieces, made.content = _pieces(writer, 6)
    numbers = b",".join(b"%d,%d" % piece for piece in pieces)
    made.records += [
        (b"GNU.sparse.size", b"%d" % _SPARSE_SIZE),
        (b"GNU.sparse.numblocks", b"%d" % len(pieces)),
        (b"GNU.sparse.name", made.name),
        (b"GNU.sparse.map", numbers),
    ]
    made.name = b"GNUSparseFile.0/cut"
    return made


def _pax_sparse_10(writer: _Writer) -> Described:
    made = writer.described(writer.new_path(), FILE)
    made.fields["magic"] = USTAR
    pieces, content = _pieces(writer, 60)
    numbers = b"".join(b"%d\n%d\n" % piece for piece in pieces)
    made.content = padded(b"%d\n%b" % (len(pieces), numbers)) + content
    made.records += [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", made.name),
        (b"GNU.sparse.realsize", b"%d" % _SPARSE_SIZE),
    ]
    made.name = b"GNUSparseFile.0/cut"
    return made


def _beside(writer: _Writer, name: bytes) -> bytes:
    return _join(writer.draw.choice(writer.directories()), name)


def _marker(type_: bytes) -> Callable[[_Writer], Described]:
    def make(writer: _Writer) -> Described:
        made = writer.described(_beside(writer, b".wh." + writer.draw.choice((b"a", b"b", b"q"))), FILE)
        made.type, made.content = type_, b""
        made.link = {SYMLINK: b"gone", HARDLINK: b".wh..wh.aufs"}.get(type_, b"")
        if type_ == CHARACTER:
            made.fields |= {"major": 0, "minor": 0}
        return made

    return make


def _reserved(name: bytes) -> Callable[[_Writer], Described]:
    def make(writer: _Writer) -> Described:
        made = writer.described(_beside(writer, name), FILE)
        made.content = b""
        return made

    return make


def _of_type(type_: bytes, **fields: Number) -> Callable[[_Writer], Described]:
    def make(writer: _Writer) -> Described:
        made = writer.described(writer.new_path(), FILE)
        made.type, made.content = type_, b""
        made.fields |= fields
        return made

    return make


def _dump_directory(writer: _Writer) -> Described:
    made = writer.described(writer.new_path(), DIRECTORY)
    made.type, made.content = b"D", b"Nfile\0Dother\0\0"
    made.fields["magic"] = GNU
    return made


def _linked(target: bytes) -> Callable[[_Writer], Described]:
    """Make a hard link to what is not there, or no file."""

    def make(writer: _Writer) -> Described:
        made = writer.described(writer.new_path(), FILE)
        made.type, made.content, made.link = HARDLINK, b"", target or made.name
        return made

    return make


def _late_link(writer: _Writer) -> Described:
    target = writer.described(writer.new_path(), FILE)
    first = writer.described(writer.new_path() + b"-early", FILE)
    first.type, first.content, first.link = HARDLINK, b"", target.name
    writer.add(first)
    return target


def _link_to_directory(writer: _Writer) -> Described:
    target = writer.described(writer.new_path(), DIRECTORY)
    writer.add(target)
    return _linked(target.name.rstrip(b"/"))(writer)


def _below(type_: bytes) -> Callable[[_Writer], Described]:
    """Make an entry below what is no directory."""

    def make(writer: _Writer) -> Described:
        over = writer.described(writer.new_path(), type_)
        over.link = b"." if type_ == SYMLINK else b""
        writer.add(over)
        return writer.described(_join(over.name, b"below"), FILE)

    return make


def _below_marker(writer: _Writer) -> Described:
    return writer.described(_join(_beside(writer, b".wh.a"), b"below"), FILE)


def _dots(writer: _Writer) -> Described:
    return writer.described(b"a/../dots", FILE)


def _lone_link(writer: _Writer) -> Described:
    made = writer.described(writer.new_path(), SYMLINK)
    made.link = b""
    return made


RARE: Final[Mapping[str, Callable[[_Writer], Described]]] = {
    "an old GNU sparse file": _gnu_sparse,
    "a PAX 0.0 sparse file": _pax_sparse_00,
    "a PAX 0.1 sparse file": _pax_sparse_01,
    "a PAX 1.0 sparse file": _pax_sparse_10,
    "a whiteout": _marker(FILE),
    "a whiteout that is a directory": _marker(DIRECTORY),
    "a whiteout that is a symlink": _marker(SYMLINK),
    "a whiteout that is a fifo": _marker(FIFO),
    "a whiteout that is a device": _marker(CHARACTER),
    "a whiteout that is a hard link to nothing": _marker(HARDLINK),
    "an opaque marker": _reserved(b".wh..wh..opq"),
    "a name of AUFS": _reserved(b".wh..wh.plnk"),
    "a 0:0 device": _of_type(CHARACTER, major=0, minor=0),
    "a socket": _of_type(FILE, mode=0o140755),
    "a dump directory": _dump_directory,
    "an unknown type": _of_type(b"Q"),
    "a continued file": _of_type(b"M"),
    "a hard link before its target": _late_link,
    "a hard link to itself": _linked(b""),
    "a hard link to nothing": _linked(b"nothing"),
    "a hard link to a directory": _link_to_directory,
    "an entry below a symlink": _below(SYMLINK),
    "an entry below a file": _below(FILE),
    "an entry below a marker": _below_marker,
    ".. in a name": _dots,
    "a symlink to nothing": _lone_link,
}
