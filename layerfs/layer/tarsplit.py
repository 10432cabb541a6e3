"""tar-split: an archive without the content of its files, which shows that a TOC says what the archive says.

Pure. zstd:chunked has one in the blob, behind the TOC. A line of JSON is a part of the archive, in order:
bytes as they are (type 2: headers, padding, the end), or a file's content, whose size is said (type 1).

Source: vbatts/tar-split tar/storage; containers/storage pkg/chunked, ensureTOCMatchesTarSplit.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from layerfs.errors import BudgetExceeded, InvalidLayer, InvalidToc
from layerfs.layer.budgets import Budgets
from layerfs.layer.member import Member
from layerfs.layer.paths import shown
from layerfs.layer.tar import BLOCK, TarReader
from layerfs.layer.toc import Entry

_CONTENT, _BYTES = 1, 2


class _Part(msgspec.Struct, frozen=True, gc=False):
    """One line."""

    type: int
    size: int = 0
    payload: bytes | None = None
    """The bytes; for content a checksum of it, which nobody needs."""


_BATCH: Final = 1 << 20
"""Bytes of lines that are decoded at once, and the rest of the last line."""
_PART: Final = msgspec.json.Decoder(_Part)


class _Source:
    """The headers of the archive, for `TarReader`."""

    def __init__(self, raw: bytes) -> None:
        self._parts = _parts(raw)
        self._bytes = bytearray()
        self._at = 0

    def block(self) -> bytes:
        """Return the next 512 bytes, nothing at the end. Raises InvalidToc where content stands there."""
        while self._at >= len(self._bytes):
            if not self._pull():
                return b""
        return self.read(BLOCK)

    def read(self, size: int) -> bytes:
        """Return the next *size* bytes and pass over their padding. Raises InvalidToc for fewer."""
        while len(self._bytes) - self._at < size:
            if not self._pull():
                raise InvalidToc("tar-split: it ends inside of a header")
        found = bytes(memoryview(self._bytes)[self._at : self._at + size])
        self._at += size + -size % BLOCK
        return found

    def content(self, size: int) -> None:
        """Pass over the content of a file and its padding. Raises InvalidToc if it has not *size* bytes."""
        part = next(self._parts, None) if self._at == len(self._bytes) else None
        if part is None or part.type != _CONTENT or part.size != size:
            what = f"{part.size} bytes of content" if part and part.type == _CONTENT else "no content"
            raise InvalidToc(f"tar-split: {what} (expected {size} bytes, as the header says)")
        self._bytes, self._at = bytearray(), -size % BLOCK

    def finish(self) -> None:
        """Raise InvalidToc if there is content behind the end of the archive."""
        for part in self._parts:
            if part.type != _BYTES:
                raise InvalidToc("tar-split: content behind the end of the archive")

    def _pull(self) -> bool:
        """Take the next bytes; False at the end."""
        part = next(self._parts, None)
        if part is None:
            return False
        if part.type != _BYTES:
            raise InvalidToc("tar-split: content where a header should be")
        if self._at >= len(self._bytes):
            self._at -= len(self._bytes)  # padding that is still to come
            self._bytes.clear()
        self._bytes += part.payload or b""  # not copied each time: a header may come byte by byte
        return True


def _parts(raw: bytes) -> Iterator[_Part]:
    """Yield the lines, decoded many at a time. Raises InvalidToc."""
    at = 0
    while at < len(raw):
        end = raw.find(b"\n", at + _BATCH) + 1 or len(raw)
        try:
            yield from _PART.decode_lines(raw[at:end])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise InvalidToc(f"tar-split: {exc}") from None
        at = end


def headers(raw: bytes, budgets: Budgets) -> Iterator[Member]:
    """Yield the members of the archive that the tar-split *raw* is of. Raises InvalidToc, BudgetExceeded."""
    source = _Source(raw)
    reader = TarReader(source, budgets)
    try:
        while (member := reader.next()) is not None:
            source.content(member.stored)
            yield member
        source.finish()
    except (InvalidToc, BudgetExceeded):
        raise
    except InvalidLayer as exc:
        raise InvalidToc(f"tar-split: {exc}") from None


def require_same(entries: Iterable[Entry], found: Iterable[Member]) -> None:
    """Raise InvalidToc unless *entries* of a TOC and members that were *found* say the same, in any order.

    All is compared that layerfs keeps of a member; containers/storage compares the times of access and change
    besides.
    """
    listed = {entry.member.name: entry.member for entry in entries}
    for member in found:
        known = listed.pop(member.name, None)
        if known is None:
            raise InvalidToc(f"{shown(member.name)}: in tar-split, not in the TOC")
        member.stored = 0
        member.xattrs = member.xattrs or None
        if member != known:
            raise InvalidToc(_difference(known, member))
    if listed:
        some = ", ".join(map(shown, list(listed)[:3]))
        raise InvalidToc(f"{some}: in the TOC, not in tar-split ({len(listed)} such entries)")


def _difference(listed: Member, found: Member) -> str:
    """Say what is the first that two members differ in."""
    both = ((name, getattr(listed, name), getattr(found, name)) for name in Member.__struct_fields__)
    name, ours, theirs = next(each for each in both if each[1] != each[2])
    return f"{shown(listed.name)}: {name} {ours!r} in the TOC, {theirs!r} in tar-split"
