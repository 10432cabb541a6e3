"""One blob from an origin into a staged file, resumed as long as that helps.

A download survives broken connections as long as it makes progress, and a restart of the process: what was
received stays staged and the next attempt goes on behind it. Judges no bytes: an extractor that reads the
staged file hashes them, and otherwise the store does before it commits.
"""

import logging

import trio

from layerfs.errors import RegistryMisbehaved, RegistryTimeout, Unreachable
from layerfs.fetch.backoff import Backoff
from layerfs.fetch.operations import Receive
from layerfs.fetch.origin import Origin
from layerfs.fetch.progress import Progress
from layerfs.oci import Descriptor, Repository
from layerfs.store import StagedDownload

log = logging.getLogger(__name__)


async def download(
    origin: Origin,
    staged: StagedDownload,
    repository: Repository,
    descriptor: Descriptor,
    progress: Progress,
) -> None:
    """Have what is missing of a blob in *staged*. The caller holds the blob's lock, and commits.

    Raises RegistryError once resuming does not help, SizeMismatch for excess bytes, StoreFull, WorkerDied.
    """

    def arrived(received: int) -> None:
        staged.grown(received)
        progress.advance(received)

    progress.phase = "downloading"
    progress.pieced = staged.offset > 0
    progress.advance(staged.offset)
    backoff = Backoff()
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
            # Opening a stream is retried by the origin: only a download that was under way is resumed here.
            pause = backoff.failed(staged.offset) if staged.offset > before else None
            if pause is None:
                raise
            log.info(
                "%s: broken off at byte %d, again in %.1f s: %s", descriptor.digest, staged.offset, pause, exc
            )
            await trio.sleep(pause)
    progress.complete(staged.offset)
