"""One layer: downloaded, extracted while it arrives, checked, published. And blobs alone.

The order of work on a digest is told in the package's docstring, who is blamed for a failure in `verdicts`.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from layerfs.errors import (
    DigestMismatch,
    LayerfsError,
    Offline,
    SizeMismatch,
    StoreDamaged,
    StoreReadOnly,
    retold,
)
from layerfs.fetch.download import Download, hashed_and_committed
from layerfs.fetch.operations import Doubt
from layerfs.fetch.origin import Origin
from layerfs.fetch.parts import BlobParts
from layerfs.fetch.progress import Journal, Progress
from layerfs.fetch.room import MakeRoom, no_room, with_room
from layerfs.fetch.tasks import make_once, outcome
from layerfs.fetch.verdicts import is_stored_blob_suspect, judge, may_be_wrong_bytes
from layerfs.fetch.workers import Recalled, Workers
from layerfs.layer.budgets import Budgets
from layerfs.layer.record import Extraction
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.oci.image import ImageLayer
from layerfs.store import ImageStorage, StagedDownload, StagedTree, VerifiedBlob
from layerfs.store.adopt import adopt
from layerfs.store.extraction import job_for

BlobFiles = Callable[[Descriptor], Path | None]
"""Finds a file of this machine that should be exactly the blob; what it is gets verified."""

_ATTEMPTS: Final = 3

log = logging.getLogger(__name__)


class LayerWork:
    """Make layers and blobs exist in the store. The caller sees to single flight."""

    def __init__(
        self,
        storage: ImageStorage,
        origin: Origin,
        download: Download,
        workers: Workers,
        budgets: Budgets,
        journal: Journal,
        parts: BlobParts,
        blob_files: BlobFiles | None = None,
        make_room: MakeRoom = no_room,
    ) -> None:
        self._storage = storage
        self._origin = origin
        self._download = download
        self._workers = workers
        self._budgets = budgets
        self._journal = journal
        self._parts = parts
        self._blob_files = blob_files
        self._make_room = make_room

    async def layer(self, repository: Repository, layer: ImageLayer) -> None:
        """Have the layer extracted, and be sure that it is the one that the image means.

        Raises DiffIdMismatch if the image's config claims another diff_id than the bytes have,
        UnsupportedImage for a blob that is no archive.
        """
        descriptor = layer.descriptor
        source = repository.registry

        async def make() -> None:
            layer.require_archive()
            counted = self._journal.making("whole", layer.digest)
            with counted, self._journal.watching(repository, descriptor) as progress:
                blob = await trio.to_thread.run_sync(self._storage.open_blob, descriptor.digest)
                if blob is None:
                    blob = await self._adopted(descriptor, progress)
                if blob is None or not await self._from_stored(layer, blob, progress):
                    await self._from_the_right(
                        repository, progress, lambda: self._from_origin(repository, layer, progress)
                    )

        for _ in range(_ATTEMPTS):  # nobody needs it yet: a collection may take it at once
            if not await self._made(layer, source, make):
                await self._overtaken(layer.digest, source)
            known = await trio.to_thread.run_sync(self._storage.open_layer, layer.digest)
            if known is not None:
                await self._parts.forget(layer.digest)
                layer.require(known.record.layer.diff_ids)
                return
        raise StoreDamaged(f"layer {layer.digest}: vanished as soon as it was there; try again")

    async def _made(self, layer: ImageLayer, source: str, make: Callable[[], Awaitable[None]]) -> bool:
        """Make a layer once; where that cannot be, say what is wrong with the directory that is there."""
        try:
            return await make_once(
                self._storage,
                source,
                layer.digest,
                lambda: self._is_here(layer.digest),
                lambda: with_room(self._storage, self._make_room, make),
            )
        except (Offline, StoreReadOnly) as exc:
            problem = await trio.to_thread.run_sync(self._storage.layer_problem, layer.digest)
            if problem is None:
                raise
            raise retold(exc, f"{exc.text} (the directory in the store is {problem})") from exc

    async def blob(self, repository: Repository, descriptor: Descriptor) -> None:
        """Have the compressed blob, verified; extract nothing."""
        source = repository.registry

        async def has() -> bool:
            return self._storage.open_blob(descriptor.digest) is not None

        async def download_whole(progress: Progress) -> None:
            with await self._staged(descriptor, progress) as staged:
                await self._download(staged, repository, descriptor, progress)
                await hashed_and_committed(staged, progress)

        async def make() -> None:
            with self._journal.watching(repository, descriptor) as progress:
                if await self._adopted(descriptor, progress) is None:
                    await self._from_the_right(repository, progress, lambda: download_whole(progress))

        room = partial(with_room, self._storage, self._make_room, make)
        if not await make_once(self._storage, source, descriptor.digest, has, room):
            await self._overtaken(descriptor.digest, source)

    async def _from_the_right(
        self, repository: Repository, progress: Progress, attempt: Callable[[], Awaitable[None]]
    ) -> None:
        """Run *attempt*; where bytes are wrong, again from the first byte as long as that may help.

        Once if they came in several pieces: any may be the wrong one, an earlier process's too. And as often
        as there is another server to ask than those that gave them.
        """
        pieced = False
        while True:
            try:
                return await attempt()
            except (DigestMismatch, SizeMismatch) as exc:
                elsewhere = await self._origin.ask(Doubt(repository, progress.digest, proven=True))
                if not elsewhere and (pieced or not progress.pieced):
                    raise
                pieced = True
                way = "asking another server" if elsewhere else "came in several pieces, fetching it in one"
                log.info("%s: %s: %s", progress.digest, way, exc)
                progress.restart()
                await self._parts.discard(progress.digest, progress.source)

    async def _is_here(self, digest: Digest) -> bool:
        """Say whether the layer is published; a thread is asked only if there is something."""
        if not self._storage.has_tree(digest):
            return False
        return await trio.to_thread.run_sync(self._storage.open_layer, digest) is not None

    async def _overtaken(self, digest: Digest, source: str) -> None:
        """Drop what was downloaded in vain."""
        await trio.to_thread.run_sync(self._storage.discard_downloads, digest, source)

    async def _from_stored(self, layer: ImageLayer, blob: VerifiedBlob, progress: Progress) -> bool:
        """Extract and publish what was downloaded before; False if it is damaged, and is gone now."""
        progress.complete(blob.size)
        async with self._tree(blob.digest) as tree:
            extraction = await outcome(self._extract(layer, tree, blob.path, progress))
            if not isinstance(extraction, LayerfsError):
                await self._publish(layer, tree, blob, extraction)
                return True
        verify = partial(self._storage.verify_layer, blob.digest, tree=False)
        if not is_stored_blob_suspect(extraction) or await trio.to_thread.run_sync(verify):
            raise extraction
        log.warning("%s: the blob in the store is damaged, fetching it again: %s", layer.digest, extraction)
        await trio.to_thread.run_sync(self._storage.discard_blob, blob.digest)
        progress.restart()
        return False

    async def _from_origin(self, repository: Repository, layer: ImageLayer, progress: Progress) -> None:
        """Download and extract at the same time, and publish. The extractor's digest is the blob's proof."""
        descriptor = layer.descriptor
        async with self._tree(descriptor.digest) as tree:
            with (
                await self._staged(descriptor, progress) as staged,
                self._parts.arriving(staged.staged_path, progress),
            ):
                failed, found = await self._both(repository, layer, staged, tree, progress)
                broken = found if isinstance(found, LayerfsError) else None
                verdict = judge(failed, broken)
                if verdict.hash_first:
                    await hashed_and_committed(staged, progress)
                if verdict.blamed is not None:
                    raise verdict.blamed
                assert isinstance(found, Extraction)
                digest = Digest.parse(found.digest)
                blob = await trio.to_thread.run_sync(staged.commit_as, digest, found.blob_size)
            await self._publish(layer, tree, blob, found)

    async def _both(
        self,
        repository: Repository,
        layer: ImageLayer,
        staged: StagedDownload,
        tree: StagedTree,
        progress: Progress,
    ) -> tuple[LayerfsError | None, Extraction | LayerfsError | None]:
        """Download into *staged*, extract it into *tree* meanwhile; return how the two ended.

        An extraction that fails stops the download, unless wrong bytes could be the reason.
        """
        failed: LayerfsError | None = None
        found: Extraction | LayerfsError | None = None
        async with trio.open_nursery() as nursery:

            async def extract() -> None:
                nonlocal found
                found = await outcome(self._extract(layer, tree, staged.staged_path, progress))
                if isinstance(found, LayerfsError) and not may_be_wrong_bytes(found):
                    nursery.cancel_scope.cancel()

            nursery.start_soon(extract)
            failed = await outcome(self._download(staged, repository, layer.descriptor, progress))
            if failed is None:
                failed = await outcome(trio.to_thread.run_sync(staged.sync))  # beside the last of extracting
            progress.abort()
        return failed, found

    async def _publish(
        self, layer: ImageLayer, tree: StagedTree, blob: VerifiedBlob, extraction: Extraction
    ) -> None:
        layer.require(extraction.diff_ids)
        await trio.to_thread.run_sync(self._storage.publish, tree, blob, extraction)

    async def _adopted(self, descriptor: Descriptor, progress: Progress) -> VerifiedBlob | None:
        """Take a file of this machine as the blob, where one is offered and its bytes can be shared."""
        if self._blob_files is None:
            return None
        path = await trio.to_thread.run_sync(self._blob_files, descriptor)
        if path is None:
            return None
        with await self._staged(descriptor, progress) as staged:
            if not await trio.to_thread.run_sync(adopt, staged, path, descriptor.size):
                return None
            progress.complete(descriptor.size)
            return await hashed_and_committed(staged, progress)

    async def _extract(
        self, layer: ImageLayer, tree: StagedTree, blob: Path, progress: Progress
    ) -> Extraction:
        """Let a worker extract *blob*, which may still grow as *progress* says."""
        while True:
            job = job_for(
                self._storage.capabilities,
                self._budgets,
                blob,
                layer.digest,
                tree.path,
                size=layer.size,
                media_type=layer.descriptor.media_type,
                complete=progress.is_whole,
            )
            try:
                return await self._workers.extract(job, progress, tree.tables.write)
            except Recalled:
                log.info("%s: starved its extractor, is extracted once it is whole", layer.digest)
                await trio.to_thread.run_sync(tree.empty)
                await progress.wait_ended()

    async def _staged(self, descriptor: Descriptor, progress: Progress) -> StagedDownload:
        return await trio.to_thread.run_sync(
            self._storage.stage_layer_download, descriptor.digest, descriptor.size, progress.source
        )

    @asynccontextmanager
    async def _tree(self, digest: Digest) -> AsyncIterator[StagedTree]:
        """Own a staged tree; what is not published by then is removed, in a thread: it may be large."""
        tree = await trio.to_thread.run_sync(self._storage.stage_tree, digest)
        try:
            yield tree
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(tree.close)
