"""Members of a TOC to files without content: what `placing` does, but for what stands in a file.

A regular file becomes a sparse file of its size with the attributes that make overlayfs look for its content
elsewhere (`layerfs.layer.overlayfs`). An empty one is complete as it is.

The inflating process parses the TOC; its members come through the ring, as an archive does: a block with the
length of the next message, the message, padding.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import msgspec

from layerfs.extract.directories import Directories
from layerfs.extract.ownership import Ownership
from layerfs.extract.placing import Placer
from layerfs.extract.remembered import Remembered
from layerfs.extract.ring import BLOCK, Feeder, RingSource
from layerfs.layer.budgets import Budgets
from layerfs.layer.member import Member
from layerfs.layer.overlayfs import object_redirect, stub_xattrs
from layerfs.layer.record import OwnerKind

_EACH: Final = 256
"""Members of a message, about 40 KiB."""
_LENGTH: Final = struct.Struct("<I")


class Stub(Member, gc=False, array_like=True):
    """One entry of a TOC, as the writer needs it."""

    object: str = ""
    """The id of the content; empty for what has none."""


_HOLES: Final[list[tuple[int, int]]] = []
"""The pieces that are stored of a file that is all hole."""
_MESSAGE: Final = msgspec.msgpack.Decoder(list[Stub])


def stub_of(member: Member, id_: str) -> Stub:
    """Return what the writer makes of *member*; *id_* is that of its content, empty if it has none."""
    # One by one, in their order: by name it takes three times as long.
    return Stub(
        member.name, member.type, member.mode, member.uid, member.gid, member.mtime_ns, member.size, 0,
        member.link, member.major, member.minor, member.xattrs, _HOLES if id_ else None, id_,
    )  # fmt: skip


def feed(stubs: Iterable[Stub], feeder: Feeder) -> None:
    """Give the writer *stubs*, until it fails. Raises PartnerDied."""
    for message in _messages(stubs):
        rest = memoryview(message)
        while rest:
            slot = feeder.slot()
            if feeder.writer_failed:
                return
            size = min(len(rest), len(slot))
            slot[:size] = rest[:size]
            feeder.publish(size)
            rest = rest[size:]


def _messages(stubs: Iterable[Stub]) -> Iterator[bytes]:
    waiting = iter(stubs)
    while some := list(islice(waiting, _EACH)):
        body = msgspec.msgpack.encode(some)
        yield _LENGTH.pack(len(body)).ljust(BLOCK, b"\0") + body + bytes(-len(body) % BLOCK)


class StubReader:
    """Reads what `feed` wrote, member by member, as a `layerfs.layer.tar.TarReader` reads an archive."""

    def __init__(self, source: RingSource) -> None:
        self.warnings: list[str] = []
        self._source = source
        self._waiting: Iterator[Stub] = iter(())

    def next(self) -> Stub | None:
        """Return the next member, None at the end. Raises Aborted, PartnerDied."""
        found = next(self._waiting, None)
        if found is not None:
            return found
        head = self._source.block()
        if not head:
            return None
        (size,) = _LENGTH.unpack_from(head)
        self._waiting = iter(_MESSAGE.decode(self._source.read(size)))
        return next(self._waiting)


class StubPlacer(Placer):
    """Writes one skeleton, with attributes for the overlays of *owner*."""

    def __init__(
        self,
        owner: OwnerKind,
        source: RingSource,
        directories: Directories,
        ownership: Ownership,
        budgets: Budgets,
        remembered: Remembered,
    ) -> None:
        super().__init__(source, directories, ownership, budgets, remembered)
        self._metacopy, self._redirect = stub_xattrs(owner)

    def _sparse_content(self, fd: int, member: Member) -> None:
        assert isinstance(member, Stub)
        os.truncate(fd, member.size)
        os.setxattr(fd, self._metacopy, b"")
        os.setxattr(fd, self._redirect, object_redirect(member.object))
