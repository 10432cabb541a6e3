"""Which pieces of a blob a staged file holds that is written in any order: the notes behind its bytes. Pure.

A file that is written from its front holds as many bytes as it is long. One that several requests fill has
holes, and neither its length nor SEEK_HOLE, which knows whole blocks alone, tells bytes from holes. So notes
follow the last byte of the blob: a head, and one byte for each piece, which is set once all of the piece was
written. They lie in the file itself, so that no rename, link or removal can part them from it; a reader who
does not know them sees a file that is longer than its blob, and begins anew.

What a killed process wrote stays in the page cache, but a loss of power may keep the notes and lose the
bytes: notes of another boot are void.
"""

import struct
from collections.abc import Iterable
from typing import Final

import msgspec

_MAGIC: Final = b"layerfs pieces 1"
_HEAD: Final = struct.Struct(">16sQQ36s")
_DONE: Final = b"\x01"
_MOST: Final = 1 << 20
"""Pieces of one blob: more are not taken for notes."""


class Pieces(msgspec.Struct):
    """The pieces of a blob of *size* bytes, *piece* bytes each but the last, and which of them are here."""

    size: int
    piece: int
    here: set[int]

    @property
    def count(self) -> int:
        """How many there are."""
        return -(-self.size // self.piece)

    def start(self, number: int) -> int:
        """Return the first byte of a piece."""
        return number * self.piece

    def end(self, number: int) -> int:
        """Return the byte behind a piece."""
        return min((number + 1) * self.piece, self.size)

    def front(self, offset: int) -> int:
        """Return before which byte nothing is missing, if that is so for *offset*."""
        while offset < self.size and offset // self.piece in self.here:
            offset = self.end(offset // self.piece)
        return offset

    def complete(self, start: int, end: int) -> list[int]:
        """Return the pieces of which all bytes are among those from *start* to before *end*."""
        return [n for n in range(-(-start // self.piece), self.count) if self.end(n) <= end]

    def is_straight(self, front: int) -> bool:
        """Say whether nothing is here behind *front*."""
        return all(self.end(number) <= front for number in self.here)

    def note_of(self, number: int) -> tuple[bytes, int]:
        """Return what to write once a piece is here, and where."""
        return _DONE, self.size + _HEAD.size + number

    def notes(self, boot: str) -> bytes:
        """Return what follows the bytes of the blob."""
        marks = bytearray(self.count)
        for number in self.here:
            marks[number] = 1
        return _HEAD.pack(_MAGIC, self.size, self.piece, boot.encode()) + bytes(marks)

    @classmethod
    def of(cls, size: int, piece: int, here: Iterable[int] = ()) -> "Pieces":
        """Divide a blob of *size* bytes."""
        return cls(size, piece, set(here))

    @classmethod
    def parse(cls, raw: bytes, size: int, boot: str) -> "Pieces | None":
        """Read the notes behind a blob of *size* bytes; None for what is none, or of another boot."""
        if len(raw) < _HEAD.size:
            return None
        magic, noted_size, piece, noted_boot = _HEAD.unpack_from(raw)
        if (magic, noted_size, noted_boot) != (_MAGIC, size, boot.encode()) or piece == 0:
            return None
        marks = raw[_HEAD.size :]
        found = cls(size, piece, {number for number, mark in enumerate(marks) if mark == 1})
        return found if len(marks) == found.count else None


def most_notes() -> int:
    """Return how many bytes notes have at most."""
    return _HEAD.size + _MOST
