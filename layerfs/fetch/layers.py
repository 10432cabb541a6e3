"""One layer: downloaded, extracted while it arrives, checked, published. And blobs alone.

Order for the work on a digest, in every process: the flight in this process is joined by the caller; here
the byte of the digest is taken, the store is looked at *again*, the work is done, published, released.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from layerfs.errors import (
    BudgetExceeded,
    DiffIdMismatch,
    DigestMismatch,
    InvalidLayer,
    LayerfsError,
    SizeMismatch,
    VerificationError,
)
from layerfs.extract.job import ExtractJob
from layerfs.fetch.download import download
from layerfs.fetch.locking import holding
from layerfs.fetch.origin import Origin
from layerfs.fetch.progress import Journal, Progress
from layerfs.fetch.tasks import attempt
from layerfs.fetch.workers import Workers
from layerfs.layer.record import Budgets, Extraction
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.oci.image import ImageLayer
from layerfs.store import ImageStorage, StagedDownload, StagedTree, VerifiedBlob
from layerfs.store.adopt import adopt

T = TypeVar("T")

BlobFiles = Callable[[Descriptor], Path | None]
"""Finds a file of this machine that should be exactly the blob; what it is gets verified."""

log = logging.getLogger(__name__)


class LayerWork:
    """Make layers and blobs exist in the store. The caller sees to single flight."""

    def __init__(
        self,
        storage: ImageStorage,
        origin: Origin,
        workers: Workers,
        budgets: Budgets,
        journal: Journal,
        blob_files: BlobFiles | None = None,
    ) -> None:
        self._storage = storage
        self._origin = origin
        self._workers = workers
        self._budgets = budgets
        self._journal = journal
        self._blob_files = blob_files

    async def layer(self, repository: Repository, layer: ImageLayer) -> None:
        """Have the layer extracted, and be sure that it is the one that the image means.

        Raises DiffIdMismatch if the image's config claims another diff_id than the bytes have.
        """
        descriptor = layer.descriptor
        async with holding(self._storage, descriptor.digest):
            known = await trio.to_thread.run_sync(self._storage.open_layer, descriptor.digest)
            if known is not None:
                check_diff_id(layer, known.record.layer.diff_id)
                return
            with self._watched(repository, descriptor) as progress:
                await self._make(repository, layer, progress)

    async def blob(self, repository: Repository, descriptor: Descriptor) -> None:
        """Have the compressed blob, verified; extract nothing."""
        async with holding(self._storage, descriptor.digest):
            if await trio.to_thread.run_sync(self._storage.open_blob, descriptor.digest) is None:
                with self._watched(repository, descriptor) as progress:
                    if await self._adopted(descriptor, progress) is not None:
                        return
                    with await self._staged(descriptor) as staged:
                        await download(self._origin, staged, repository, descriptor, progress)
                        await _hashed_and_committed(staged, progress)

    async def _make(self, repository: Repository, layer: ImageLayer, progress: Progress) -> None:
        digest = layer.descriptor.digest
        blob = await trio.to_thread.run_sync(self._storage.open_blob, digest)
        if blob is None:
            blob = await self._adopted(layer.descriptor, progress)
        if blob is not None:
            try:
                await self._from_blob(layer, blob, progress)
            except (InvalidLayer, DigestMismatch, SizeMismatch) as exc:
                if not await self._is_damaged(digest):
                    raise
                log.warning("%s: the blob in the store is damaged, fetching it again: %s", digest, exc)
                await trio.to_thread.run_sync(self._storage.discard_blob, digest)
                progress.restart()
            else:
                return
        async with self._tree(digest) as tree:
            blob, extraction = await self._fetched(repository, layer, tree, progress)
            check_diff_id(layer, extraction.diff_id)
            await trio.to_thread.run_sync(self._storage.publish, tree, blob, extraction)

    async def _from_blob(self, layer: ImageLayer, blob: VerifiedBlob, progress: Progress) -> None:
        """Extract and publish what was downloaded before."""
        progress.complete(blob.size)
        async with self._tree(blob.digest) as tree:
            extraction = await self._extract(layer, tree, str(blob.path), progress)
            check_diff_id(layer, extraction.diff_id)
            await trio.to_thread.run_sync(self._storage.publish, tree, blob, extraction)

    async def _is_damaged(self, digest: Digest) -> bool:
        """Say whether the stored blob is to blame, rather than the image."""
        return not await trio.to_thread.run_sync(partial(self._storage.verify_layer, digest, tree=False))

    @asynccontextmanager
    async def _tree(self, digest: Digest) -> AsyncIterator[StagedTree]:
        """Own a staged tree; what is not published by then is removed, in a thread: it may be large."""
        tree = await trio.to_thread.run_sync(self._storage.stage_tree, digest)
        try:
            yield tree
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(tree.close)

    async def _fetched(
        self, repository: Repository, layer: ImageLayer, tree: StagedTree, progress: Progress
    ) -> tuple[VerifiedBlob, Extraction]:
        """Download and extract at the same time. The extractor hashes what it reads: that is the proof.

        Wrong bytes mostly break the archive too, and the archive breaks first: so after a failed extraction
        the blob is hashed, which says whether the registry or the image is at fault.
        """
        descriptor = layer.descriptor
        with await self._staged(descriptor) as staged:
            read = partial(self._extract, layer, tree, str(staged.staged_path), progress)
            extraction = await self._overlapped(repository, descriptor, staged, progress, read)
            if isinstance(extraction, LayerfsError):
                if _may_be_wrong_bytes(extraction):
                    await _hashed_and_committed(staged, progress)
                raise extraction
            found = Digest.parse(extraction.digest)
            return await trio.to_thread.run_sync(staged.commit_as, found, extraction.blob_size), extraction

    async def _overlapped(
        self,
        repository: Repository,
        descriptor: Descriptor,
        staged: StagedDownload,
        progress: Progress,
        read: Callable[[], Awaitable[T]],
    ) -> T | LayerfsError:
        """Download into *staged* while *read* reads along; return what it found once both have ended.

        Its failure stops the download, unless wrong bytes could be the reason. The download's failure is
        raised.
        """
        found: T | LayerfsError | None = None
        failure: LayerfsError | None = None
        async with trio.open_nursery() as nursery:

            async def read_along() -> None:
                nonlocal found
                found = await attempt(read())
                if isinstance(found, LayerfsError) and not _may_be_wrong_bytes(found):
                    nursery.cancel_scope.cancel()

            nursery.start_soon(read_along)
            failure = await attempt(download(self._origin, staged, repository, descriptor, progress))
            if failure is None:
                failure = await attempt(trio.to_thread.run_sync(staged.sync))  # beside the last of reading
            progress.abort()
        if failure is not None:
            raise failure
        assert found is not None
        return found

    async def _adopted(self, descriptor: Descriptor, progress: Progress) -> VerifiedBlob | None:
        """Take a file of this machine as the blob, where one is offered and its bytes can be shared."""
        if self._blob_files is None:
            return None
        path = await trio.to_thread.run_sync(self._blob_files, descriptor)
        if path is None:
            return None
        with await self._staged(descriptor) as staged:
            if not await trio.to_thread.run_sync(adopt, staged, path, descriptor.size):
                return None
            progress.complete(descriptor.size)
            return await _hashed_and_committed(staged, progress)

    async def _staged(self, descriptor: Descriptor) -> StagedDownload:
        return await trio.to_thread.run_sync(
            self._storage.stage_layer_download, descriptor.digest, descriptor.size
        )

    async def _extract(
        self, layer: ImageLayer, tree: StagedTree, blob: str, progress: Progress
    ) -> Extraction:
        """Let a worker extract *blob*, which may still grow as *progress* says."""
        job = ExtractJob(
            blob=blob,
            target=str(tree.path),
            digest=str(layer.descriptor.digest),
            size=layer.descriptor.size,
            media_type=layer.descriptor.media_type,
            owner=self._storage.capabilities.owner,
            whiteout_devices=self._storage.capabilities.whiteout_devices,
            complete=progress.ended == "complete",
            budgets=self._budgets,
        )
        return await self._workers.extract(job, progress)

    @contextmanager
    def _watched(self, repository: Repository, descriptor: Descriptor) -> Iterator[Progress]:
        """Show the work on a blob in the journal while it runs, its failure afterwards."""
        progress = Progress(repository, descriptor.digest, descriptor.size)
        self._journal.active[descriptor.digest] = progress
        try:
            yield progress
            progress.phase = "done"
        except LayerfsError as exc:
            progress.phase = "failed"
            self._journal.failed(f"{repository}@{descriptor.digest}", exc)
            raise
        finally:
            del self._journal.active[descriptor.digest]


async def _hashed_and_committed(staged: StagedDownload, progress: Progress) -> VerifiedBlob:
    """Commit a whole blob that no extractor has hashed. Raises VerificationError, StoreError."""
    progress.phase = "verifying"
    return await trio.to_thread.run_sync(staged.commit, trio.from_thread.check_cancelled)


def check_diff_id(layer: ImageLayer, found: str) -> None:
    """Raise DiffIdMismatch unless the bytes of *layer* are what its image's config claims."""
    if found != str(layer.diff_id):
        raise DiffIdMismatch(
            f"layer {layer.number} ({layer.descriptor.digest}): uncompressed digest is {found} "
            f"(expected {layer.diff_id}, as the image's config says)"
        )


def _may_be_wrong_bytes(error: LayerfsError) -> bool:
    """Say whether a broken download could look like this to the extractor."""
    return isinstance(error, InvalidLayer | VerificationError) and not isinstance(error, BudgetExceeded)
