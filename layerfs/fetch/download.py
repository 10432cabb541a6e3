"""One blob from an origin into a staged file, resumed as long as that helps.

A download survives broken connections as long as it makes progress, and a restart of the process: what was
received stays staged and the next attempt goes on behind it. Judges no bytes: an extractor that reads the
staged file hashes them, and otherwise the store does before it commits.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from layerfs.errors import RegistryError, RegistryMisbehaved, RegistryTimeout, Unreachable, retold
from layerfs.fetch.backoff import Backoff
from layerfs.fetch.operations import Receive
from layerfs.fetch.origin import Listener, Origin
from layerfs.fetch.parts import BlobParts, spans_of
from layerfs.fetch.progress import Progress
from layerfs.fetch.spans import Span, ahead
from layerfs.fetch.streams import ONE, Rate, Streams, fill, gap_end
from layerfs.host.files import write_all_at
from layerfs.host.oserrors import disk_errors
from layerfs.oci import Descriptor, Repository
from layerfs.store import StagedDownload, VerifiedBlob
from layerfs.store.parts import Part

_COPIED: Final = 1 << 20
"""Bytes that are copied at a time."""

Download = Callable[[StagedDownload, Repository, Descriptor, Progress], Awaitable[None]]
"""`download`, from one origin."""

log = logging.getLogger(__name__)


class _Arrived:
    """Takes in how many bytes are there, and remembers when that was."""

    def __init__(self, staged: StagedDownload, progress: Progress) -> None:
        self._staged = staged
        self._progress = progress
        self._last = trio.current_time()

    @property
    def silent(self) -> float:
        """Seconds since the last byte."""
        return trio.current_time() - self._last

    def __call__(self, received: int) -> None:
        self._last = trio.current_time()
        self._progress.phase = "downloading"  # not before: it may wait for a place at the registry
        self._staged.grown(received)
        self._progress.advance(received)


async def download(
    origin: Origin,
    staged: StagedDownload,
    repository: Repository,
    descriptor: Descriptor,
    progress: Progress,
    *,
    parts: BlobParts | None = None,
    new_backoff: Callable[[], Backoff] = Backoff,
    streams: Streams = ONE,
) -> None:
    """Have what is missing of a blob in *staged*. The caller holds the blob's lock, and commits.

    *parts* may have some of it, which is not asked for again if it is worth a second request. *streams* says
    when several fill it; the first sign of harm ends that. Raises RegistryError once resuming does not help,
    SizeMismatch for excess bytes, StoreError, WorkerDied.
    """
    arrived = _Arrived(staged, progress)
    progress.begin(staged.offset)
    here = await parts.here(descriptor.digest, repository.registry) if parts else []
    backoff, before, alone = new_backoff(), staged.offset, progress.restarted
    while (start := await _settled(staged, progress)) < descriptor.size:
        ready, end = ahead(start, descriptor.size, spans_of(here))
        if ready is not None and await trio.to_thread.run_sync(_take, staged, here, ready, arrived):
            progress.pieced = True
            continue
        several = not alone and end == descriptor.size and streams.are_worth(end - start)
        end = streams.probed(start) if several else gap_end(staged, end)
        progress.pieced |= start > 0 or end < descriptor.size
        question = Receive(repository, descriptor, start, str(staged.staged_path), end, follow=several)
        try:
            wants_more = await _asked(origin, question, staged, arrived, backoff.progress, streams)
            alone |= several
            if several and wants_more:
                await fill(origin, staged, repository, descriptor, arrived, streams)
        except (Unreachable, RegistryTimeout, RegistryMisbehaved) as exc:
            if staged.offset == before:  # opening a stream is retried by the origin
                raise
            await _rest(exc, backoff, staged, arrived.silent)
    progress.complete(staged.offset)


async def _settled(staged: StagedDownload, progress: Progress) -> int:
    """Return where *staged* goes on, over what is here ahead; watchers hear of that. Raises StoreError."""
    if staged.pieces:
        await trio.to_thread.run_sync(staged.settle)
        progress.advance(staged.offset)
    return staged.offset


async def _asked(
    origin: Origin, question: Receive, staged: StagedDownload, arrived: Listener, least: int, streams: Streams
) -> bool:
    """Have *question* answered; say whether several requests would do better than that one did.

    Raises RegistryMisbehaved for an answer that ended early, without *least* bytes, and what the origin does.
    """
    rate = Rate()
    is_part = await origin.ask(question, staged.descriptors, rate.hearing(arrived))
    if staged.offset < question.end and staged.offset - question.offset < least:
        blob = question.descriptor
        what = f"{question.repository}@{blob.digest}: the answer ended after {staged.offset} bytes"
        raise RegistryMisbehaved(f"{what} (expected {blob.size})")
    return is_part and not streams.is_enough(rate)


async def _rest(exc: RegistryError, backoff: Backoff, staged: StagedDownload, silent: float) -> None:
    """Wait before a download that was under way is resumed. Raises the error where that does not help."""
    pause = backoff.failed(staged.offset, silent)
    if pause is None:
        raise retold(exc, f"{exc.text} (given up {silent:.0f} s after the last byte)") from exc
    log.info("%s: broken off at byte %d, again in %.1f s: %s", staged.digest, staged.offset, pause, exc)
    await trio.sleep(pause)


async def hashed_and_committed(staged: StagedDownload, progress: Progress) -> VerifiedBlob:
    """Commit a whole blob that no extractor has hashed. Raises VerificationError, StoreError."""
    progress.phase = "verifying"
    return await trio.to_thread.run_sync(staged.commit, trio.from_thread.check_cancelled)


def _take(staged: StagedDownload, parts: Sequence[Part], span: Span, arrived: Callable[[int], None]) -> bool:
    """Copy *span* of a blob out of *parts*; False if they have it no more. Raises StoreFull, StoreError."""
    fd, _ = staged.descriptors
    while staged.offset < span.end:
        part = next((one for one in parts if one.start <= staged.offset < one.end), None)
        data = part.read(staged.offset, min(staged.offset + _COPIED, part.end, span.end)) if part else b""
        if not data:
            return False
        with disk_errors(f"{staged.staged_path}: cannot write"):
            write_all_at(fd, data, staged.offset)
        trio.from_thread.run_sync(arrived, staged.offset + len(data))
    return True
