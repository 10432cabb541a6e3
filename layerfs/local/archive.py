"""The table of contents of a tar archive: names to byte ranges. Nothing is unpacked; no name becomes a path.

Uses the reader that judges layers, with its limits.
"""

import os
from pathlib import Path
from typing import IO, Final
from weakref import finalize

from layerfs.compression.formats import SNIFFED
from layerfs.errors import BudgetExceeded, InvalidArchive, InvalidLayer
from layerfs.host.oserrors import source_error
from layerfs.layer.budgets import Budgets
from layerfs.layer.member import Member, Type
from layerfs.layer.paths import clean, shown
from layerfs.layer.tar import BLOCK, TarReader
from layerfs.local.inflate import inflated
from layerfs.local.pieces import FilePart, opened, read_at

MAX_MEMBERS: Final = 100_000
_MAX_LINKS: Final = 8
_MAX_DEPTH: Final = 16


class Archive:
    """An archive's members by name."""

    def __init__(self, path: Path) -> None:
        """Read all headers. Raises NotFound, Denied, InvalidArchive, BudgetExceeded, StoreError."""
        self.path = path
        self._pieces: dict[bytes, FilePart] = {}
        self._links: dict[bytes, bytes] = {}
        self._plain = self._inflated()
        """Held open: the pieces name it by its descriptor."""
        if self._plain is not None:
            finalize(self, self._plain.close)
            self._bytes = Path(f"/proc/self/fd/{self._plain.fileno()}")
        else:
            self._bytes = path
        with opened(self._bytes) as fd:
            source = _Source(fd, path)
            reader = TarReader(source, Budgets())
            for _ in range(MAX_MEMBERS):
                try:
                    member = reader.next()
                except InvalidLayer as exc:  # it speaks of layers, and knows no path
                    raise type(exc)(f"{path}: {exc}") from exc
                if member is None:
                    return
                self._take(member, source)
        raise BudgetExceeded(f"{path}: more than {MAX_MEMBERS} members (expected an archive of images)")

    def find(self, name: str) -> FilePart | None:
        """Return where the content of a member is, links followed within the archive; None if it has none."""
        wanted = os.fsencode(name)
        for _ in range(_MAX_LINKS):
            if wanted in self._pieces:
                return self._pieces[wanted]
            if wanted not in self._links:
                return None
            wanted = self._links[wanted]
        raise InvalidArchive(f"{self.path}: {shown(os.fsencode(name))}: too many links")

    def _inflated(self) -> IO[bytes] | None:
        with opened(self.path) as fd:
            head = read_at(fd, 0, min(SNIFFED, os.fstat(fd).st_size), self.path)
        return inflated(self.path, head)

    def _take(self, member: Member, source: "_Source") -> None:
        name = clean(member.name, _MAX_DEPTH)
        if member.type is Type.FILE:
            if member.extents is not None:
                raise InvalidArchive(f"{self.path}: {shown(name)}: a sparse member (expected plain files)")
            self._pieces[name] = FilePart(self._bytes, source.position, member.size, is_file=False)
            source.skip(member.stored)
        elif member.type is Type.HARDLINK:
            self._links[name] = clean(member.link, _MAX_DEPTH)
        elif member.type is Type.SYMLINK:
            self._links[name] = _normal(name.rpartition(b"/")[0] + b"/" + member.link)


class _Source:
    """An open file as the tar reader wants it; see `layerfs.layer.member.Source`."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._end = os.fstat(fd).st_size
        self.position = 0

    def block(self) -> bytes:
        """Return the next header."""
        try:
            found = os.pread(self._fd, BLOCK, self.position)
        except OSError as exc:
            raise source_error(exc, self._path) from exc
        self.position += len(found)
        if len(found) not in (0, BLOCK):
            raise InvalidArchive("not a tar archive, or cut off")
        return found

    def read(self, size: int) -> bytes:
        """Return the body of an extended header; the reader has limited *size*."""
        found = read_at(self._fd, self.position, size, self._path)
        self.skip(size)
        return found

    def skip(self, size: int) -> None:
        """Pass over the content of a member."""
        if self.position + size > self._end:
            raise InvalidArchive(f"{self._path}: cut off at byte {self._end} (inside a member)")
        self.position += (size + BLOCK - 1) // BLOCK * BLOCK


def _normal(path: bytes) -> bytes:
    """Resolve ``..`` in what is only a name to look up in the table: it may lead nowhere, not outside."""
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)
