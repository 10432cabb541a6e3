"""Archives of real tools, and damage done to them: what the tar reader is fuzzed with.

The corpus holds one tree (every kind of file, long names, xattrs, ACLs, holes, odd times and owners) as GNU
tar in its five formats, bsdtar and umoci write it.
"""

import gzip
import random
from pathlib import Path
from typing import Final

from layerfs.errors import InvalidLayer
from layerfs.layer import metadata, paths, whiteout
from layerfs.layer.budgets import Budgets
from layerfs.layer.member import Member, Type
from tests.layer import headers

BLOCK: Final = 512
BUDGETS: Final = Budgets(max_pax_bytes=1 << 16)
_FIELDS: Final = (
    (0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (329, 8),
    (337, 8), (345, 155), (386, 96), (482, 1), (483, 12),
)  # fmt: skip
_TYPES: Final = b"\x000123456789xXgLKSDVMNA"
_VALUES: Final = (
    b"", b"\0", b" ", b"/", b"..", b"../x", b"a/../b", b".wh.", b".wh..wh..opq", b"./.", b"7" * 12, b"0" * 12,
    b"-1", b"+1", b"1_0", b"\x80" + bytes(11), b"\xff" * 12, b"\x80" + b"\xff" * 11, b"\xff" + bytes(11),
    b"99999999999", b"00000001000\0", b"00000000001\0", b"\xe9\n\t", b"x" * 300,
)  # fmt: skip
_WORDS: Final = (
    b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"SCHILY.xattr.user.a", b"SCHILY.filetype",
    b"LIBARCHIVE.xattr.user.%62", b"GNU.sparse.map", b"GNU.sparse.major", b"GNU.sparse.minor",
    b"GNU.sparse.realsize", b"GNU.sparse.size", b"GNU.sparse.offset", b"GNU.sparse.numbytes",
    b"GNU.sparse.name", b"GNU.sparse.numblocks",
)  # fmt: skip
_TEXTS: Final = (
    b"", b"0", b"1", b"-1", b"1.5", b"-1.5", b".", b"1e3", b"9" * 19, b"9" * 400, b"0,1", b"512,3,2048,512",
    b"0,0,0,0", b"..", b"a/b/../c", b"d/x", b"socket", b"aGk", b"%", b"\xff", b"\xc2\xb2", b"x" * 4000,
)  # fmt: skip


def corpus() -> dict[str, bytes]:
    """Return the archives by name."""
    found = sorted(Path(__file__).with_name("corpus").glob("*.tar.gz"))
    return {path.name.removesuffix(".tar.gz"): gzip.decompress(path.read_bytes()) for path in found}


class Mutator:
    """Damages archives, the same way for the same seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._corpus = list(corpus().values())

    def next(self) -> bytes:
        """Return another archive."""
        chance = self._chance
        archive = bytearray(chance.choice(self._corpus))
        for _ in range(chance.randint(1, 5)):
            step = chance.choice(
                (self._bytes, self._field, self._field, self._blocks, self._record, self._cut)
            )
            step(archive)
        return bytes(archive)

    def _block(self, archive: bytearray) -> int:
        """Return where a block begins, that of a header more often than not."""
        starts = range(0, max(len(archive) - BLOCK, 0) + 1, BLOCK)
        headers_ = [at for at in starts if archive[at + 257 : at + 262] == b"ustar"]
        return self._chance.choice(headers_ if headers_ and self._chance.random() < 0.9 else starts)

    def _bytes(self, archive: bytearray) -> None:
        at = self._block(archive)
        for _ in range(self._chance.randint(1, 8)):
            place = at + self._chance.randrange(BLOCK)
            archive[place : place + 1] = self._chance.choice(
                (b"\0", b"\xff", b"7", self._chance.randbytes(1))
            )
        self._sign(archive, at)

    def _field(self, archive: bytearray) -> None:
        at = self._block(archive)
        offset, size = self._chance.choice(_FIELDS)
        if offset == 156:
            text = bytes([self._chance.choice(_TYPES)])
        else:
            text = self._chance.choice(_VALUES)[:size].ljust(self._chance.choice((0, size)), b"\0")
        archive[at + offset : at + offset + len(text)] = text
        self._sign(archive, at)

    def _blocks(self, archive: bytearray) -> None:
        """Repeat, remove or insert whole blocks."""
        at, count = self._block(archive), self._chance.randint(1, 4) * BLOCK
        other = self._chance.choice(self._corpus)
        start = self._chance.randrange(0, len(other), BLOCK)
        piece = self._chance.choice(
            (b"", other[start : start + count], archive[at : at + count], bytes(count))
        )
        archive[at : at + self._chance.choice((0, count))] = piece

    def _record(self, archive: bytearray) -> None:
        """Put an extended header in front of a member."""
        chance = self._chance
        if chance.random() < 0.2:
            made = headers.long_name(chance.choice(_VALUES + _TEXTS), chance.choice((b"L", b"K")))
        else:
            records = [(chance.choice(_WORDS), chance.choice(_TEXTS)) for _ in range(chance.randint(1, 6))]
            made = headers.pax(*records, type=chance.choice((b"x", b"x", b"g", b"X")))
        at = self._block(archive)
        archive[at:at] = made

    def _cut(self, archive: bytearray) -> None:
        if self._chance.random() < 0.2:
            del archive[self._chance.randint(0, len(archive)) :]
            archive += bytes(-len(archive) % BLOCK)

    def _sign(self, archive: bytearray, at: int) -> None:
        """Make the checksum of a header right, mostly."""
        if self._chance.random() < 0.9 and len(archive) >= at + BLOCK:
            archive[at + 148 : at + 156] = b" " * 8
            archive[at + 148 : at + 156] = b"%06o\0 " % sum(archive[at : at + BLOCK])


def judge(archive: bytes) -> list[Member]:
    """Read an archive and make of it what the writer would decide; nothing if it is refused.

    Raises whatever is not a refusal, AssertionError for what must not pass.
    """
    try:
        members, _ = headers.read(archive, BUDGETS)
    except InvalidLayer:
        return []
    assert len(members) * BLOCK <= len(archive)
    for member in members:
        try:
            _check(member)
        except InvalidLayer:
            continue
    return members


def _check(member: Member) -> None:
    assert 0 <= member.mode <= 0o7777
    assert 0 <= member.uid < 1 << 32
    assert 0 <= member.gid < 1 << 32
    assert 0 <= member.stored <= member.size < 1 << 95
    assert abs(member.mtime_ns) < 1 << 86
    at = 0
    for offset, length in member.extents or ():
        assert at <= offset <= offset + length <= member.size
        at = offset + length
    for name in (member.name, member.link) if member.type is Type.HARDLINK else (member.name,):
        path = paths.clean(name, BUDGETS.max_depth)
        assert not path.startswith(b"/")
        assert b"\0" not in path
        for part in path.split(b"/") if path else ():
            assert 0 < len(part) <= 255
            assert part not in (b".", b"..")
            whiteout.parse_marker(part)
    if member.xattrs:
        metadata.kept_xattrs(member.xattrs, member.name)
