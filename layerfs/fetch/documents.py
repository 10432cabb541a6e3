"""Tags, manifests, indexes and configs: from the registry into the store, verified.

None of it needs a lock: two processes that fetch one document write the same bytes.
"""

import trio

from layerfs.errors import InvalidDocument
from layerfs.fetch.origin import Origin
from layerfs.oci import Digest, ImageReference, Index, Manifest, Platform, Repository
from layerfs.store import ImageStorage

MAX_INDEX_DEPTH = 4
"""Indexes in indexes that are followed; image-spec sets no limit, hostile registries need one."""


class Documents:
    """Fetch what describes images; answer from the store where it knows."""

    def __init__(self, storage: ImageStorage, origin: Origin, platform: Platform) -> None:
        self._storage = storage
        self._origin = origin
        self._platform = platform

    async def resolve(self, reference: ImageReference) -> Digest:
        """Ask the registry what a tag names now, and pin the tag to it."""
        assert reference.tag is not None
        found = await self._origin.resolve(reference.repository, reference.tag)
        if found.raw is not None:
            await trio.to_thread.run_sync(self._storage.save_manifest, found.raw, found.digest)
        await trio.to_thread.run_sync(
            self._storage.refs.write, reference.repository, reference.tag, found.digest
        )
        return found.digest

    async def image(self, repository: Repository, digest: Digest) -> Manifest:
        """Have the document *digest*, and the manifest and config for this platform below it."""
        document = await self.document(repository, digest)
        for _ in range(MAX_INDEX_DEPTH):
            if isinstance(document, Manifest):
                await self._config(repository, document)
                return document
            chosen = document.choose(self._platform)
            document = await self.document(repository, chosen.digest, chosen.size)
        raise InvalidDocument(f"{repository}@{digest}: more than {MAX_INDEX_DEPTH} indexes inside each other")

    async def document(
        self, repository: Repository, digest: Digest, size: int | None = None
    ) -> Manifest | Index:
        """Have one manifest or index."""
        if not await trio.to_thread.run_sync(self._storage.has_manifest, digest):
            raw, _media_type = await self._origin.fetch_manifest(repository, digest, size)
            await trio.to_thread.run_sync(self._storage.save_manifest, raw, digest)
        return await trio.to_thread.run_sync(self._storage.load_manifest, digest)

    async def _config(self, repository: Repository, manifest: Manifest) -> None:
        if not await trio.to_thread.run_sync(self._storage.has_config, manifest.config.digest):
            raw = await self._origin.fetch_config(repository, manifest.config)
            await trio.to_thread.run_sync(self._storage.save_config, raw, manifest.config.digest)
