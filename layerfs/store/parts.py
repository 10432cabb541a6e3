"""Parts of a blob that came before the rest of it: for files of lazy layers that somebody opened.

Each is a file beside the blob's final name, ``sha256-<hex>@<start>-<end>.<32 hex>.part``, complete by a
rename; the digits say where it came from, as for downloads. What they hold is unverified, as all parts of a
blob are: it spares a later download of the whole a request for the same bytes, whose digest is checked then.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from layerfs.host.oserrors import disk_errors
from layerfs.oci import Digest
from layerfs.store.disk import FILE_MODE, unlink
from layerfs.store.layout import mark_of, staged
from layerfs.store.locks import Locks

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_STEM: Final = r"(?P<blob>[a-z0-9]+-[0-9a-f]+)@(?P<start>\d{1,19})-(?P<end>\d{1,19})"


class Part(msgspec.Struct, frozen=True):
    """Bytes [start, end) of a blob, in a file of their own."""

    start: int
    end: int
    path: Path

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes [*start*, *end*) of the blob, which must lie in this part.

        Fewer if the file was cut, none if it is gone. Raises StoreError.
        """
        with disk_errors(f"{self.path}: cannot read"):
            try:
                fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                return b""
            try:
                return os.pread(fd, end - start, start - self.start)
            finally:
                os.close(fd)


class StagedPart(msgspec.Struct, frozen=True):
    """A part that is on its way."""

    part: Part
    """What it will be."""
    path: Path
    fd: int
    """Where its bytes go, the first at offset 0; another process may write them."""

    def commit(self) -> Part:
        """Give the part its name. Raises StoreError."""
        # Not awaited: what a power cut takes is fetched again, and what it spoils fails the blob's digest.
        with disk_errors(f"{self.part.path}: cannot publish"):
            os.rename(self.path, self.part.path)
        return self.part


class PartShelf:
    """All parts of all blobs."""

    def __init__(self, directory: Path, locks: Locks) -> None:
        self._directory = directory
        self._locks = locks

    @contextlib.contextmanager
    def stage(self, digest: Digest, source: str, start: int, end: int) -> Iterator["StagedPart"]:
        """Own a file for the bytes [*start*, *end*) that *source* is to send; it goes unless it is committed.

        Raises StoreFull, StoreReadOnly, StoreError.
        """
        final = staged(self._directory, f"{digest.name}@{start}-{end}", "part", mark_of(source))
        temporary = staged(self._directory, digest.name, "writing")
        with self._locks.holding(temporary):
            with disk_errors(f"{temporary}: cannot create"):
                fd = os.open(temporary, _CREATE, FILE_MODE)
            try:
                yield StagedPart(Part(start, end, final), temporary, fd)
            finally:
                os.close(fd)
                with contextlib.suppress(OSError):
                    os.unlink(temporary)

    def of(self, digest: Digest, source: str) -> list[Part]:
        """Return the parts of a blob that came from *source*, in order. Raises StoreError."""
        return sorted(
            (part for mark, part in self._all(digest) if mark == mark_of(source) and _is_whole(part)),
            key=lambda part: (part.start, -part.end),
        )

    def discard(self, digest: Digest, source: str | None = None) -> None:
        """Remove the parts of a blob: those of *source*, or all. Raises StoreError."""
        for mark, part in self._all(digest):
            if source is None or mark == mark_of(source):
                unlink(part.path)

    def _all(self, digest: Digest) -> Iterator[tuple[str, Part]]:
        prefix = f"{digest.name}@"
        with disk_errors(f"{self._directory}: cannot list"):
            names = os.listdir(self._directory)
        for name in names:
            if name.startswith(prefix) and name.endswith(".part"):
                stem, random, _ = name.rsplit(".", 2)
                if match := re.fullmatch(_STEM, stem, re.ASCII):
                    place = int(match["start"]), int(match["end"])
                    yield random[: len(mark_of(""))], Part(*place, self._directory / name)


def blob_of(stem: str) -> str:
    """Return the name of the blob that the staged name *stem* is a part of; *stem* if it is none."""
    match = re.fullmatch(_STEM, stem, re.ASCII)
    return match["blob"] if match else stem


def _is_whole(part: Part) -> bool:
    with contextlib.suppress(OSError):
        return os.lstat(part.path).st_size == part.end - part.start > 0
    return False
