"""One blob from an origin into a staged file, resumed as long as that helps.

A download survives broken connections as long as it makes progress, and a restart of the process: what was
received stays staged and the next attempt goes on behind it. Judges no bytes: an extractor that reads the
staged file hashes them, and otherwise the store does before it commits.
"""

import logging
from collections.abc import Awaitable, Callable

import trio

from layerfs.errors import RegistryError, RegistryMisbehaved, RegistryTimeout, Unreachable
from layerfs.fetch.backoff import Backoff
from layerfs.fetch.operations import Receive
from layerfs.fetch.origin import Origin
from layerfs.fetch.progress import Progress
from layerfs.oci import Descriptor, Repository
from layerfs.store import StagedDownload

Download = Callable[[StagedDownload, Repository, Descriptor, Progress], Awaitable[None]]
"""`download`, from one origin."""

log = logging.getLogger(__name__)


async def download(
    origin: Origin,
    staged: StagedDownload,
    repository: Repository,
    descriptor: Descriptor,
    progress: Progress,
    *,
    new_backoff: Callable[[], Backoff] = Backoff,
) -> None:
    """Have what is missing of a blob in *staged*. The caller holds the blob's lock, and commits.

    Raises RegistryError once resuming does not help, SizeMismatch for excess bytes, StoreFull, WorkerDied.
    """
    last = trio.current_time()

    def arrived(received: int) -> None:
        nonlocal last
        last = trio.current_time()
        staged.grown(received)
        progress.advance(received)

    progress.phase = "downloading"
    progress.pieced = staged.offset > 0
    progress.advance(staged.offset)
    backoff = new_backoff()
    before = staged.offset
    while staged.offset < descriptor.size:
        start = staged.offset
        try:
            progress.pieced |= start > 0
            question = Receive(repository, descriptor, start, str(staged.staged_path))
            await origin.ask(question, staged.descriptors, arrived)
            if staged.offset < descriptor.size and staged.offset - start < backoff.progress:
                what = f"{repository}@{descriptor.digest}: the answer ended after {staged.offset} bytes"
                raise RegistryMisbehaved(f"{what} (expected {descriptor.size})")
        except (Unreachable, RegistryTimeout, RegistryMisbehaved) as exc:
            if staged.offset == before:  # opening a stream is retried by the origin
                raise
            await _rest(exc, backoff, staged, trio.current_time() - last)
    progress.complete(staged.offset)


async def _rest(exc: RegistryError, backoff: Backoff, staged: StagedDownload, silent: float) -> None:
    """Wait before a download that was under way is resumed. Raises the error where that does not help."""
    pause = backoff.failed(staged.offset, silent)
    if pause is None:
        raise type(exc)(f"{exc} (given up {silent:.0f} s after the last byte)") from exc
    log.info("%s: broken off at byte %d, again in %.1f s: %s", staged.digest, staged.offset, pause, exc)
    await trio.sleep(pause)
