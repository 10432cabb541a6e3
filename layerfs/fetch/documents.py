"""Tags, manifests, indexes and configs: from the registry into the store, verified.

A document is fetched once, whoever of the processes of a store wants it.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import trio

from layerfs.errors import (
    ImageError,
    InvalidDocument,
    NotFound,
    NotInStore,
    RegistryMisbehaved,
    StoreDamaged,
    StoreReadOnly,
)
from layerfs.fetch.operations import FetchConfig, FetchManifest, Resolve
from layerfs.fetch.origin import Origin
from layerfs.fetch.tasks import make_once
from layerfs.oci import (
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    Repository,
    Tag,
    descend,
    parse_manifest,
)
from layerfs.store import ImageStorage

log = logging.getLogger(__name__)


def _ignore(_repository: Repository, _manifest: Manifest, _into: bool) -> None:
    """Foresee nothing."""


class DocumentFetcher:
    """Fetch what describes images; answer from the store where it knows."""

    def __init__(self, storage: ImageStorage, origin: Origin, platform: Platform) -> None:
        self.foreseen: Callable[[Repository, Manifest, bool], None] = _ignore
        """Hears of each manifest whose config is about to be asked for, and whether to look into layers."""
        self._storage = storage
        self._origin = origin
        self._platform = platform
        self._manifests = _Kind(storage.load_manifest, storage.has_manifest, storage.save_manifest)
        self._configs = _Kind(storage.load_config, storage.has_config, storage.save_config)

    async def resolve(self, tag: Tag) -> Digest:
        """Ask the registry what a tag names now, and pin the tag to it once the document is in the store.

        Raises RegistryMisbehaved if the registry does not have what it says that the tag names: it may lag
        behind a push.
        """
        # A document that is known already costs a HEAD, which no registry counts as a pull; a tag that nobody
        # has asked for leads to a document that is not here.
        known = await trio.to_thread.run_sync(self._storage.refs.read, tag)
        found = await self._origin.ask(Resolve(tag, whole=known is None))
        if found.raw is not None:
            try:
                await trio.to_thread.run_sync(self._keep, found.raw, found.digest, found.media_type)
            except InvalidDocument as exc:  # the page of a portal, for instance
                raise InvalidDocument(f"{tag}: served as {found.media_type or 'nothing'!r}: {exc}") from exc
        try:
            await self.document(tag.repository, found.digest)
        except NotFound as exc:
            error = RegistryMisbehaved(
                f"{tag}: the registry names {found.digest} and does not have it; try again ({exc.text})"
            )
            error.asked = exc.asked
            raise error from exc
        await trio.to_thread.run_sync(self._storage.refs.write, tag, found.digest)
        await self.document(tag.repository, found.digest)  # again: while it had no name it was garbage
        return found.digest

    async def image(self, repository: Repository, digest: Digest, *, into: bool = False) -> Manifest:
        """Have the document *digest*, and the manifest and config for this platform below it.

        *into* says that its layers are looked into next.
        """
        document = await self.document(repository, digest)
        below: dict[Digest, Manifest | Index] = {}
        while isinstance(found := descend(document, self._platform, below.get), Descriptor):
            below[found.digest] = await self.document(repository, found.digest, found.size)
        await self._config(repository, found, into=into)
        return found

    async def single(self, repository: Repository, digest: Digest) -> Manifest | Index:
        """Have the document *digest*, and of a manifest the config."""
        document = await self.document(repository, digest)
        if isinstance(document, Manifest):
            await self._config(repository, document)
        return document

    async def document(
        self, repository: Repository, digest: Digest, size: int | None = None
    ) -> Manifest | Index:
        """Have one manifest or index."""
        storage = self._storage

        async def fetch() -> None:
            raw, media_type = await self._origin.ask(FetchManifest(repository, digest, size))
            await trio.to_thread.run_sync(self._keep, raw, digest, media_type)

        await self._once(repository, digest, self._manifests, fetch)
        return await trio.to_thread.run_sync(storage.load_manifest, digest)

    def _keep(self, raw: bytes, digest: Digest, media_type: str) -> None:
        """Save a document that is of the kind that was announced. Blocks: it may have megabytes."""
        parse_manifest(raw, digest, media_type)
        self._storage.save_manifest(raw, digest)

    async def _config(self, repository: Repository, manifest: Manifest, *, into: bool = False) -> None:
        descriptor = manifest.config

        async def fetch() -> None:
            self.foreseen(repository, manifest, into)
            raw = await self._origin.ask(FetchConfig(repository, descriptor))
            await trio.to_thread.run_sync(self._storage.save_config, raw, descriptor.digest)

        await self._once(repository, descriptor.digest, self._configs, fetch)

    async def _once(
        self,
        repository: Repository,
        digest: Digest,
        kind: "_Kind",
        fetch: Callable[[], Awaitable[None]],
    ) -> None:
        """Run *fetch* unless the store has *digest*, or gets it meanwhile."""

        async def here() -> bool:
            return await trio.to_thread.run_sync(kind.is_here, digest)

        await make_once(self._storage, repository.registry, digest, here, fetch)


class _Kind(msgspec.Struct, frozen=True):
    """What the store does with documents of one kind."""

    load: Callable[[Digest], Manifest | Index | ImageConfig]
    has: Callable[[Digest], bool]
    save: Callable[[bytes, Digest], object]

    def is_here(self, digest: Digest) -> bool:
        """Say whether the store has the right bytes; damaged ones are fetched anew.

        What was removed since this process read it is written once more. Raises StoreFull, StoreError.
        """
        try:
            document = self.load(digest)
            if not self.has(digest):
                with suppress(StoreReadOnly):
                    self.save(document.raw, digest)
        except NotInStore:
            return False
        except StoreDamaged as exc:
            log.info("%s (it is fetched anew)", exc)
            return False
        except ImageError as exc:
            log.debug("%s: in the store, and wrong as it is: %s", digest, exc)
        return True
