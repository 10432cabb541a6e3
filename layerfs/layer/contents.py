"""The fifth table of a record, which a skeleton alone has: where the bytes of its files are, by object.

Rows as those of `layerfs.layer.tables`, sorted by the id of the object: a tab follows, and JSON. A TOC of a
large layer makes tens of megabytes of them, so nobody reads all to find one: `find_row` asks for parts. Pure.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from layerfs.errors import InvalidToc
from layerfs.layer.tables import END
from layerfs.layer.toc import Content

_VALUE: Final = b"\t"
_PART: Final = 4 << 10
"""Bytes that are asked for at a time; a row has some hundred."""

Read = Callable[[int, int], bytes]
"""Returns so many bytes of the table from an offset, fewer at its end."""

_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder(Content).decode


def contents_by_id(contents: Iterable[tuple[str, Content]]) -> list[tuple[str, Content]]:
    """Return each of *contents* once, sorted. Raises InvalidToc for one digest of two sizes."""
    found: dict[str, Content] = {}
    for id_, content in contents:
        known = found.setdefault(id_, content)
        if known.size != content.size:
            raise InvalidToc(f"TOC: files of {known.size} and of {content.size} bytes with one digest")
    return sorted(found.items())


def content_row(id_: str, content: Content) -> bytes:
    """Return the row of the object *id_*."""
    return id_.encode("ascii") + _VALUE + _ENCODE(content) + END


def parse_row(row: bytes) -> tuple[str, Content]:
    """Read what `content_row` wrote, without its end. Raises ValueError."""
    id_, _, value = row.partition(_VALUE)
    return id_.decode("ascii"), _DECODE(value)


def find_row(read: Read, size: int, id_: str) -> bytes | None:
    """Return the row of *id_* in a table of *size* bytes, None if there is none."""
    wanted = id_.encode("ascii") + _VALUE
    low, high = 0, size
    while low < high:
        start = _row_start(read, low, (low + high) // 2)
        key = read(start, len(wanted))
        if key == wanted:
            return row_at(read, start)
        if key < wanted:
            low = start + len(row_at(read, start)) + len(END)
        else:
            high = start
    return None


def rows_of(read: Read, size: int) -> Iterator[bytes]:
    """Yield all rows, some kilobytes at a time."""
    at, rest = 0, b""
    while at < size:
        part = read(at, 16 * _PART)
        if not part:
            return
        at += len(part)
        *whole, rest = (rest + part).split(END)
        yield from whole


def _row_start(read: Read, low: int, at: int) -> int:
    """Return where the row begins that the byte *at* is in; *low* begins a row."""
    while at > low:
        begin = max(low, at - _PART)
        found = read(begin, at - begin).rfind(END)
        if found >= 0:
            return begin + found + 1
        at = begin
    return low


def row_at(read: Read, start: int) -> bytes:
    """Return the row that begins at *start*."""
    parts = []
    while part := read(start, _PART):
        row, end, _ = part.partition(END)
        parts.append(row)
        if end:
            break
        start += len(part)
    return b"".join(parts)
