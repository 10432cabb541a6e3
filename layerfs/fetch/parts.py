"""Parts of blobs for whoever needs no more: asked for once, kept in the store, shared by all who want them.

Judges no bytes: whoever makes a file of them does, and the blob's digest once the rest is there.
"""

import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import trio

from layerfs.errors import ImageError, NoRanges, NotInStore, RegistryMisbehaved, RegistryTimeout, Unreachable
from layerfs.fetch.backoff import Backoff
from layerfs.fetch.operations import Doubt, ReceiveRange
from layerfs.fetch.origin import Origin
from layerfs.fetch.progress import Progress
from layerfs.fetch.spans import Readahead, Span, merged, missing, requests
from layerfs.fetch.tasks import all_of
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.store import ImageStorage
from layerfs.store.parts import Part, StagedPart

REQUEST_MAX: Final = 64 << 20
"""Bytes that one request asks for: what came before it broke off is kept in pieces of this size."""
_AT_ONCE: Final = 4
"""Requests of one caller at the same time."""
_SOON: Final = 8 << 20
"""Bytes that a download of the whole may lack to what is wanted: it is waited for, nothing asked beside."""
_MORE: Final = 1 << 20
"""Bytes behind it that are waited for, too: each time that somebody is woken costs some milliseconds."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Found(msgspec.Struct, frozen=True):
    """What a need for bytes has led to."""

    parts: list[Part]
    """They hold the bytes, and maybe others."""
    ahead: Span
    """From the first wanted byte on, those that are likely to be wanted next: *parts* may hold some."""


class BlobParts:
    """Parts of blobs, from *origin* into *storage*. The caller sees to single flight."""

    def __init__(
        self, storage: ImageStorage, origin: Origin, new_backoff: Callable[[], Backoff] = Backoff
    ) -> None:
        self._storage = storage
        self._new_backoff = new_backoff
        self._origin = origin
        self._known: dict[tuple[Digest, str], list[Part]] = {}
        """What is here, by blob and registry, as it was found at the first question and grew since."""
        self._reading: dict[tuple[Digest, str], Readahead] = {}
        self._arriving: dict[tuple[Digest, str], tuple[Path, Progress]] = {}
        """Blobs that are being downloaded whole, by where."""

    async def have(self, repository: Repository, blob: Descriptor, wanted: Iterable[Span]) -> list[Part]:
        """Have all of *wanted*; return the parts that hold it. Raises LayerfsError, as NoRanges."""
        return (await self._have(repository, blob, merged(wanted), None)).parts

    async def have_ahead(self, repository: Repository, blob: Descriptor, wanted: Iterable[Span]) -> Found:
        """Have all of *wanted*, and what is likely to be wanted next. Raises as `have`."""
        reading = self._reading.setdefault((blob.digest, repository.registry), Readahead())
        return await self._have(repository, blob, merged(wanted), reading)

    async def _have(
        self, repository: Repository, blob: Descriptor, spans: list[Span], reading: Readahead | None
    ) -> Found:
        ahead = Span(0, 0)
        if reading and spans:
            ahead = reading.extended(Span(spans[0].start, spans[-1].end), blob.size)
        whole = self._storage.open_blob(blob.digest)  # one lstat(2)
        if whole is not None:
            return Found([Part(0, whole.size, whole.path)], ahead)
        here = await self._all(blob.digest, repository.registry)
        found = _usable(here, [*spans, ahead])
        patient = reading is not None and reading.is_all_wanted
        lacking = missing(spans, spans_of(found))
        coming = await self._coming(blob.digest, repository.registry, lacking, patient=patient)
        if coming is not None:
            found.append(coming)
        asked = requests(spans, spans_of(found), REQUEST_MAX)
        if asked and ahead.end > asked[-1].end:
            more = missing([Span(asked[-1].start, ahead.end)], spans_of(here))
            asked = [*asked[:-1], *more[:1]]
        fresh = await self._receive_all(repository, blob, asked)
        here += fresh
        return Found(found + fresh, ahead)

    @contextmanager
    def arriving(self, path: Path, progress: Progress) -> Iterator[None]:
        """Let parts of a blob be taken out of the file *path* while it arrives there whole."""
        key = progress.digest, progress.source
        self._arriving[key] = path, progress
        try:
            yield
        finally:
            del self._arriving[key]

    async def _coming(
        self, digest: Digest, source: str, lacking: list[Span], *, patient: bool
    ) -> Part | None:
        """Return what a download of the whole has of what is *lacking*; None if it has not all.

        Who is *patient* waits for it, unless it is far.
        """
        path, progress = self._arriving.get((digest, source), (None, None))
        if path is None or progress is None or not lacking:
            return None
        end = lacking[-1].end
        if patient and 0 < end - progress.received <= _SOON:
            await progress.wait_beyond(min(end + _MORE, progress.size) - 1)
        return Part(0, progress.received, path) if progress.received >= end else None

    async def _receive_all(self, repository: Repository, blob: Descriptor, spans: list[Span]) -> list[Part]:
        found: list[Part] = []

        async def ask(span: Span) -> None:
            found.append(await self._receive(repository, blob, span))

        await all_of(*(partial(ask, span) for span in spans), at_once=_AT_ONCE)
        return found

    def is_all_wanted(self, digest: Digest, source: str) -> bool:
        """Say whether a blob is being read file after file."""
        reading = self._reading.get((digest, source))
        return reading is not None and reading.is_all_wanted

    async def here(self, digest: Digest, source: str) -> list[Part]:
        """Return what is here of a blob from *source*, a registry; a collection may take it.

        Raises StoreError.
        """
        return _usable(await self._all(digest, source), [Span(0, 1 << 62)])

    async def _all(self, digest: Digest, source: str) -> list[Part]:
        key = digest, source
        if key not in self._known:
            found = await trio.to_thread.run_sync(self._storage.parts.of, digest, source)
            self._known.setdefault(key, found)
        return self._known[key]

    async def of_the_right(
        self, repository: Repository, blob: Descriptor, work: Callable[[], Awaitable[T]]
    ) -> T:
        """Return what *work* makes of parts; where it cannot, of those of another server, if there is one.

        Whatever was here of the blob from that registry is removed then. Raises what *work* raises.
        """
        while True:
            try:
                return await work()
            except ImageError as exc:
                await self.discard(blob.digest, repository.registry)
                if not await self._origin.ask(Doubt(repository, blob.digest, proven=False)):
                    raise
                log.info("%s: asking another server for its parts: %s", blob.digest, exc)

    async def discard(self, digest: Digest, source: str | None = None) -> None:
        """Remove what is here of a blob: from *source*, or all. Raises StoreError."""
        for key in [key for key in self._known if key[0] == digest and source in (None, key[1])]:
            del self._known[key]
            self._reading.pop(key, None)
        await trio.to_thread.run_sync(self._storage.parts.discard, digest, source)

    async def forget(self, digest: Digest) -> None:
        """Remove what was met here of a blob that is whole now. Raises StoreError."""
        keys = [key for key in self._known if key[0] == digest]
        has_some = any(self._known[key] for key in keys)
        for key in keys:
            del self._known[key]
            self._reading.pop(key, None)
        if has_some:
            await trio.to_thread.run_sync(self._storage.parts.discard, digest)

    async def _receive(self, repository: Repository, blob: Descriptor, span: Span) -> Part:
        """Ask for one range, and go on where an answer broke off as long as that helps."""
        shelf = self._storage.parts
        with shelf.stage(blob.digest, repository.registry, *span) as staged:
            backoff = self._new_backoff()
            received = 0
            while received < span.size:
                try:
                    received += await self._ask(repository, blob, span, staged, received)
                except _Broken as broken:
                    received += broken.received
                    pause = backoff.failed(received) if received else None
                    if pause is None:
                        raise broken.cause from None
                    log.info(
                        "%s: broken off at byte %d, again in %.1f s: %s",
                        blob.digest,
                        span.start + received,
                        pause,
                        broken.cause,
                    )
                    await trio.sleep(pause)
            return staged.commit()

    async def _ask(
        self, repository: Repository, blob: Descriptor, span: Span, staged: StagedPart, at: int
    ) -> int:
        told = 0

        def arrived(received: int) -> None:
            nonlocal told
            told = received

        question = ReceiveRange(repository, blob, span.start + at, span.end, at, str(staged.path))
        try:
            if not await self._origin.ask(question, (staged.fd,), arrived):
                raise NoRanges(f"{repository.registry} answers no ranges")
        except (Unreachable, RegistryTimeout, RegistryMisbehaved) as exc:
            raise _Broken(told, exc) from exc
        return span.size - at


class _Broken(Exception):
    """An answer that broke off after some bytes."""

    def __init__(self, received: int, cause: Exception) -> None:
        super().__init__(received, cause)
        self.received = received
        self.cause = cause


def _usable(parts: list[Part], spans: Sequence[Span]) -> list[Part]:
    """Return those of *parts* that hold bytes of *spans*; what a collection took is dropped from *parts*."""
    found = [part for part in parts if any(part.start < span.end and span.start < part.end for span in spans)]
    gone = [part for part in found if not os.path.lexists(part.path)]
    for part in gone:
        parts.remove(part)
    return [part for part in found if part not in gone] if gone else found


def spans_of(parts: Sequence[Part]) -> list[Span]:
    """Return the bytes that *parts* hold."""
    return [Span(part.start, part.end) for part in parts]


def read_span(parts: Sequence[Part], span: Span) -> bytes:
    """Return the bytes *span* of a blob out of *parts*. Raises StoreError, NotInStore if one is missing."""
    found = bytearray()
    while (at := span.start + len(found)) < span.end:
        part = next((one for one in parts if one.start <= at < one.end), None)
        data = part.read(at, min(part.end, span.end)) if part else b""
        if not data:
            raise NotInStore(f"byte {at} of a blob: not here any more; try again")
        found += data
    return bytes(found)
