"""Tags, manifests, indexes and configs: from the registry into the store, verified.

A document is fetched once, whoever of the processes of a store wants it.
"""

from collections.abc import Awaitable, Callable

import trio

from layerfs.fetch.operations import FetchConfig, FetchManifest, Resolve
from layerfs.fetch.origin import Origin
from layerfs.fetch.tasks import holding
from layerfs.oci import (
    Descriptor,
    Digest,
    Index,
    Manifest,
    Platform,
    Repository,
    Tag,
    descend,
    parse_manifest,
)
from layerfs.store import ImageStorage


class DocumentFetcher:
    """Fetch what describes images; answer from the store where it knows."""

    def __init__(self, storage: ImageStorage, origin: Origin, platform: Platform) -> None:
        self._storage = storage
        self._origin = origin
        self._platform = platform

    async def resolve(self, tag: Tag) -> Digest:
        """Ask the registry what a tag names now, and pin the tag to it."""
        found = await self._origin.ask(Resolve(tag))
        if found.raw is not None:
            await trio.to_thread.run_sync(self._keep, found.raw, found.digest, found.media_type)
        await trio.to_thread.run_sync(self._storage.refs.write, tag, found.digest)
        return found.digest

    async def image(self, repository: Repository, digest: Digest) -> Manifest:
        """Have the document *digest*, and the manifest and config for this platform below it."""
        document = await self.document(repository, digest)
        below: dict[Digest, Manifest | Index] = {}
        while isinstance(found := descend(document, self._platform, below.get), Descriptor):
            below[found.digest] = await self.document(repository, found.digest, found.size)
        await self._config(repository, found)
        return found

    async def document(
        self, repository: Repository, digest: Digest, size: int | None = None
    ) -> Manifest | Index:
        """Have one manifest or index."""
        storage = self._storage

        async def fetch() -> None:
            raw, media_type = await self._origin.ask(FetchManifest(repository, digest, size))
            await trio.to_thread.run_sync(self._keep, raw, digest, media_type)

        await self._once(digest, storage.has_manifest, fetch)
        return await trio.to_thread.run_sync(storage.load_manifest, digest)

    def _keep(self, raw: bytes, digest: Digest, media_type: str) -> None:
        """Save a document that is of the kind that was announced. Blocks: it may have megabytes."""
        parse_manifest(raw, digest, media_type)
        self._storage.save_manifest(raw, digest)

    async def _config(self, repository: Repository, manifest: Manifest) -> None:
        descriptor = manifest.config

        async def fetch() -> None:
            raw = await self._origin.ask(FetchConfig(repository, descriptor))
            await trio.to_thread.run_sync(self._storage.save_config, raw, descriptor.digest)

        await self._once(descriptor.digest, self._storage.has_config, fetch)

    async def _once(
        self, digest: Digest, has: Callable[[Digest], bool], fetch: Callable[[], Awaitable[None]]
    ) -> None:
        """Run *fetch* unless the store has *digest*, or got it while another process held its byte."""
        if await trio.to_thread.run_sync(has, digest):
            return
        async with holding(self._storage, digest):
            if not await trio.to_thread.run_sync(has, digest):
                await fetch()
