"""One blob from the registry into the store: resumed, verified, committed.

A download survives broken connections as long as it makes progress, and a restart of the process: what was
received stays staged and the next attempt goes on behind it. Bytes are judged by the store's staged
download; nothing here can publish anything unverified.
"""

import logging

import trio

from layerfs.errors import RegistryError, RegistryMisbehaved, RegistryTimeout, Unreachable
from layerfs.fetch.origin import Origin
from layerfs.fetch.progress import Progress
from layerfs.oci import Descriptor, Repository
from layerfs.registry import Backoff
from layerfs.store import StagedDownload, VerifiedBlob

log = logging.getLogger(__name__)

BATCH = 1 << 20
"""Bytes handed to the disk at once: a hop to a thread costs as much as hashing 300 KiB."""


async def download(
    origin: Origin,
    staged: StagedDownload,
    repository: Repository,
    descriptor: Descriptor,
    progress: Progress,
) -> VerifiedBlob:
    """Fetch what is missing of a blob, and commit it. The caller holds the blob's lock and *staged*.

    Raises RegistryError once resuming does not help, VerificationError for wrong bytes, StoreFull.
    """
    progress.phase = "downloading"
    progress.advance(staged.offset)
    backoff = Backoff()
    before = staged.offset
    while staged.offset < descriptor.size:
        try:
            await _receive(origin, repository, descriptor, staged, progress)
        except (Unreachable, RegistryTimeout, RegistryMisbehaved) as exc:
            # Opening a stream is retried by the origin: only a download that was under way is resumed here.
            pause = backoff.failed(staged.offset) if staged.offset > before else None
            if pause is None:
                raise
            log.info(
                "%s: broken off at byte %d, again in %.1f s: %s", descriptor.digest, staged.offset, pause, exc
            )
            await trio.sleep(pause)
    blob = await trio.to_thread.run_sync(staged.commit)
    progress.complete(blob.size)
    return blob


async def _receive(
    origin: Origin,
    repository: Repository,
    descriptor: Descriptor,
    staged: StagedDownload,
    progress: Progress,
) -> None:
    """Make one request for what is missing and stage the answer; return at its end, whole or not."""
    async with origin.stream_blob(repository, descriptor, offset=staged.offset) as stream:
        # A server that ignores Range sends what is staged already: the same bytes, or the digest fails.
        skip = staged.offset - stream.offset
        batch = _Batch(staged, progress)
        try:
            async for chunk in stream:
                if skip:
                    passed = min(skip, len(chunk))
                    skip -= passed
                    chunk = chunk[passed:]
                await batch.add(chunk)
                # The loop gives two turns at a time while lookups come in: this takes one of them.
                await trio.lowlevel.checkpoint()
        except RegistryError:
            await batch.flush()  # a broken connection takes away nothing that arrived
            raise
        await batch.flush()
    if staged.offset < descriptor.size:
        raise RegistryMisbehaved(
            f"{repository}@{descriptor.digest}: the answer ended after {staged.offset} bytes "
            f"(expected {descriptor.size})"
        )


class _Batch:
    """What arrived and is not staged yet.

    One buffer, used again: new memory is a page fault for each 4 KiB, in the loop that answers lookups.
    """

    def __init__(self, staged: StagedDownload, progress: Progress) -> None:
        self._staged = staged
        self._progress = progress
        self._buffer = memoryview(bytearray(BATCH))
        self._filled = 0

    async def add(self, chunk: bytes) -> None:
        """Take *chunk*, and stage each whole batch."""
        while chunk:
            taken = min(len(chunk), BATCH - self._filled)
            self._buffer[self._filled : self._filled + taken] = chunk[:taken]
            self._filled += taken
            chunk = chunk[taken:]
            if self._filled == BATCH:
                await self.flush()

    async def flush(self) -> None:
        """Stage what is there."""
        if self._filled:
            await trio.to_thread.run_sync(self._staged.write, self._buffer[: self._filled])
            self._progress.advance(self._staged.offset)
            self._filled = 0
