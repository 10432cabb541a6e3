"""Objects: what a file of a lazy layer holds, out of the bytes of the blob that hold it.

Whoever reads file after file has those that come next with the one that he opens: their bytes came by one
range, are decoded by one job, and published before he asks. One file alone costs 10 ms of messages, threads
and locks on a busy machine, the next 0.4.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio

from layerfs.errors import LayerfsError
from layerfs.extract.job import PartHere, UnpackJob
from layerfs.fetch.decoding import Decoders
from layerfs.fetch.parts import BlobParts, Found, spans_of
from layerfs.fetch.room import MakeRoom, with_room, with_what_is_here
from layerfs.fetch.spans import Span, missing
from layerfs.layer.toc import Content
from layerfs.needs import FileNeed
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.store import ImageStorage

_BATCH: Final = 32 << 20
"""Bytes of files that are made before somebody asks for them, in one job."""
_BATCH_FILES: Final = 1000

log = logging.getLogger(__name__)


class ObjectWork:
    """Make objects exist in the store. The caller sees to single flight."""

    def __init__(
        self, storage: ImageStorage, parts: BlobParts, decoders: Decoders, make_room: MakeRoom
    ) -> None:
        self._storage = storage
        self._parts = parts
        self._decoders = decoders
        self._make_room = make_room

    async def make(self, repository: Repository, blob: Descriptor, toc: Digest, id_: str) -> Found:
        """Have the object *id_*, which a file of the layer *blob* is by its TOC; return what that has led to.

        Raises LayerfsError, NoRanges where the registry sends whole blobs alone.
        """
        content = await trio.to_thread.run_sync(self._storage.lazy.content, toc, id_)

        async def once() -> Found:
            found = await self._parts.have_ahead(repository, blob, _spans(content))
            await self._unpack(blob, [content], found)
            return found

        twice = partial(with_what_is_here, once)  # a part may go, and be asked for again, or be whole by then
        right = partial(self._parts.of_the_right, repository, blob, twice)
        return await with_room(self._storage, self._make_room, right)

    async def advance(self, blob: Descriptor, toc: Digest, found: Found) -> None:
        """Have what can be made of *found* before somebody asks for it; what fails is told to who asks."""
        if self._storage.lazy.indexes.number_after(toc, *found.ahead) == 1:
            return  # the one that was asked for
        try:
            contents = await trio.to_thread.run_sync(self._likely, toc, found)
            if contents:
                await self._unpack(blob, contents, found)
        except LayerfsError as exc:
            log.debug("%s: nothing in advance: %s", blob.digest, exc)

    def lacking(self, toc: Digest) -> list[str]:
        """Return the objects of a skeleton that are not here, in the order of the blob. Blocking.

        Raises NotInStore, StoreDamaged.
        """
        lazy = self._storage.lazy
        ids = dict.fromkeys(content.id for content in lazy.indexes.after(toc, 0, 1 << 62))
        ids |= dict.fromkeys(lazy.object_ids(toc))  # holes are nowhere in it
        return [id_ for id_ in ids if not lazy.objects.has(id_)]

    async def _unpack(self, blob: Descriptor, contents: list[Content], found: Found) -> None:
        held = tuple(PartHere(part.start, part.end, str(part.path)) for part in found.parts)
        job = UnpackJob(digest=str(blob.digest), contents=tuple(contents), held=held)
        await self._decoders.unpack(job, self._storage.lazy.objects.stage)

    def _likely(self, toc: Digest, found: Found) -> list[Content]:
        """Return what is likely to be wanted next, in the order of the blob. Raises StoreError."""
        lazy, held = self._storage.lazy, spans_of(found.parts)
        chosen: list[Content] = []
        size = 0
        for content in lazy.indexes.after(toc, *found.ahead):
            if lazy.objects.has(content.id) or missing(_spans(content), held):
                continue
            size += content.size
            if size > _BATCH or len(chosen) >= _BATCH_FILES:
                break
            chosen.append(content)
        return chosen


def _spans(content: Content) -> list[Span]:
    return [Span(piece.offset, piece.end) for piece in content.pieces if piece.digest]


async def first_of(
    need: FileNeed,
    names: Callable[[FileNeed], Awaitable[bool]],
    meet: Callable[[FileNeed], Awaitable[None]],
) -> None:
    """Have *meet* meet *need* or, where that fails, one of its others; those whose TOC *names* the object.

    Does nothing if none does: who asks again sees it. Raises the first error, once all have been tried.
    """
    errors: list[LayerfsError] = []
    for one in (need, *need.others):
        try:
            if await names(one):
                await meet(one)
                return
        except LayerfsError as exc:
            errors.append(exc)
    if errors:
        raise errors[0]
