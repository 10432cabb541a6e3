"""The API for programs on trio, and what the other faces run: `Store`, `Image`, `Mount`, `Lease`.

A call can be cancelled, and has the deadline of the scope around it: what was downloaded stays for the next
attempt. Nothing here blocks the loop for longer than a system call on a local file takes.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Self, Unpack

import trio

from layerfs import naming
from layerfs.api.backing import Backing
from layerfs.api.facts import ImageFacts
from layerfs.api.here import image_here, require_platform
from layerfs.api.images import Image, Lease, Mount
from layerfs.api.machinery import (
    fetch_image,
    made_durable,
    manifest_for,
    pinned,
)
from layerfs.api.options import Options, StrPath, platform_of, settings_of
from layerfs.api.watching import Tell, Watcher, tasks, telling
from layerfs.catalog.names import named_images
from layerfs.catalog.verification import Report, Verification
from layerfs.gc.jobs import Outcome, collect_garbage, remove_images, survey
from layerfs.gc.listing import StoredImage, list_images
from layerfs.gc.survey import Survey
from layerfs.needs import Need
from layerfs.oci import Digest, ImageReference
from layerfs.oci import Image as Documents
from layerfs.settings import Settings
from layerfs.status import Fetching
from layerfs.store import ImageStorage, RefEntry
from layerfs.store.checking import How
from layerfs.store.leases import Lease as StoredLease

__all__ = ["Image", "Lease", "Mount", "Store"]


class Store:
    """A store of images on this machine's disk, and who fetches into it. Made by `open`."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self.storage = backing.storage
        """What is below: bytes, locks, leases (`layerfs.store`)."""

    @classmethod
    @asynccontextmanager
    async def open(cls, path: StrPath | None = None, **options: Unpack[Options]) -> AsyncIterator[Self]:
        """Open the store at *path* for a block, and make it where none is.

        Without a *path* it is that of the command line, with its configuration (docs/embedding.md).
        Raises StoreError, InvalidSettings, UsageError.
        """
        settings = settings_of(path, options)
        storage = await trio.to_thread.run_sync(_storage, settings)
        with storage:
            async with tasks() as nursery:
                backing = Backing(settings, storage, nursery)
                try:
                    yield cls(backing)
                finally:
                    backing.let_go()

    async def pull(
        self, reference: str | ImageReference, *, platform: str | None = None, progress: Tell | None = None
    ) -> Image:
        """Ask the registry what *reference* names now, and have all its layers here, on the disk.

        *progress* is called with the work on each layer that was not here, at most ten times a second of
        each. Raises LayerfsError.
        """
        named = await trio.to_thread.run_sync(self._reference, reference)
        machinery = await self._backing.machinery()
        target = named.target
        digest = target if isinstance(target, Digest) else await machinery.provider.resolve(target)
        image = await self._image(named, digest, platform)
        if named.digest:
            self.storage.refs.keep(named.repository, digest)
        await self._backing.keep(image)
        missing = [layer for layer in image.layers if self.storage.open_layer(layer.digest) is None]
        size = sum(layer.size for layer in missing)
        await trio.to_thread.run_sync(self._backing.keeper.require_room, str(named), size)
        told = telling(machinery.provider.journal, named.repository, missing, progress)
        async with made_durable(self.storage), told:
            await fetch_image(machinery, named, image.documents)
        return image

    async def image(self, reference: str | ImageReference, *, platform: str | None = None) -> Image:
        """Return an image without its layers: as it is here, or else as the registry says now.

        Raises LayerfsError.
        """
        named, wanted = await trio.to_thread.run_sync(self._reference, reference), platform_of(platform)
        here = image_here(self.storage, named, wanted or self._backing.settings.preferred_platform)
        if here is not None:
            digest, documents = here
            require_platform(documents, wanted or self._backing.settings.platform)
            return Image(self._backing, named, digest, documents)
        return await self._image(named, await pinned(await self._backing.machinery(), named), platform)

    async def images(self) -> Sequence[StoredImage]:
        """Return the names that the store has, sorted, and what is known of each platform that is here.

        A row for each platform, unless the store was opened for one. Raises StoreError.
        """
        wanted, one = self._backing.settings.preferred_platform, self._backing.settings.platform is not None

        def found() -> list[StoredImage]:
            refs = sorted(self.storage.refs.all(), key=lambda named: str(named[0]))
            return list_images(self.storage, dict(refs), wanted, one=one)

        return await trio.to_thread.run_sync(found)

    async def remove(
        self, images: Iterable[str | ImageReference], *, plan_only: bool = False, force: bool = False
    ) -> Outcome:
        """Remove names of images, and what only they needed: tags, digests or image ids, as ``layerfs rm``.

        Returns what went, with *plan_only* what would. Raises NotInStore, StoreReadOnly, StoreError.
        """
        names = list(images)

        def work() -> Outcome:
            return remove_images(self.storage, self._named(names), force=force, dry_run=plan_only)

        return await trio.to_thread.run_sync(work)

    async def lease(
        self,
        name: str,
        what: Iterable[ImageFacts | Digest | str],
        *,
        until: datetime | None = None,
        pid: int | None = None,
    ) -> Lease:
        """Keep images, or layers and documents by their digests, until *until* or as long as *pid* lives.

        By default as long as this process lives. A lease of that *name* is replaced; another process ends it
        by its name: `end_lease`, ``layerfs lease rm``. Raises StoreReadOnly, StoreError, UsageError.
        """
        digests = [one.digest if isinstance(one, ImageFacts) else one for one in what]
        take = partial(self.storage.lease, name, digests, until=until, pid=pid)
        return Lease(await trio.to_thread.run_sync(take))

    async def leases(self) -> Mapping[str, StoredLease]:
        """Return the leases that hold, of all processes, by their names. Raises StoreError."""
        return dict(await trio.to_thread.run_sync(self.storage.leases.holding))

    async def end_lease(self, name: str) -> None:
        """End a lease of any process. Raises NotInStore, StoreReadOnly, StoreError."""
        await trio.to_thread.run_sync(self.storage.leases.end, name)

    async def gc(self, *, plan_only: bool = False, older_than: float = 0, force: bool = False) -> Outcome:
        """Remove what no name, lease, mount or work needs, and say what went; with *plan_only* what would.

        What was used within *older_than* seconds is spared. *force* goes on where not all mounts of the
        machine can be seen. Raises StoreError.
        """
        collect = partial(
            collect_garbage, self.storage, older_than=older_than, force=force, dry_run=plan_only
        )
        return await trio.to_thread.run_sync(collect)

    async def verify(
        self,
        images: Iterable[str | ImageReference] | None = None,
        *,
        quick: bool = False,
        repair: bool = False,
        force: bool = False,
    ) -> Report:
        """Check all that is here, or some *images*, against the digests; with *repair* make it anew.

        *quick* reads no layer. Raises StoreError; what is wrong is in the report.
        """
        provider = (await self._backing.machinery()).provider if repair else None
        names = None if images is None else list(images)

        def fetch(need: Need) -> None:
            assert provider is not None, "only repairs fetch"
            trio.from_thread.run(provider.obtain, need)

        def check() -> Report:
            chosen = None if names is None else self._named(names)
            how = How(quick=quick, repair=repair, force=force)
            work = Verification(
                self.storage,
                how,
                spent=lambda _: trio.from_thread.check_cancelled(),
                fetch=fetch if repair else None,
            )
            return work.run(chosen, lambda *_: None)

        return await trio.to_thread.run_sync(check)

    async def usage(self) -> Survey:
        """Return what takes how much, who needs it, and what a collection would remove. Raises StoreError."""
        return await trio.to_thread.run_sync(survey, self.storage)

    async def events(self) -> AsyncIterator[Fetching]:
        """Yield what is being fetched, whenever that has changed, at most ten times a second, for ever."""
        watch = self.watch()
        while True:
            yield await watch.next()

    def watch(self) -> Watcher:
        """Return what is asked for one event at a time."""
        return Watcher(self._backing.statistics)

    def _named(self, names: Iterable[str | ImageReference]) -> dict[ImageReference, RefEntry]:
        """Return the refs that *names* mean. Raises NotInStore."""
        found = (named_images(self.storage, str(text), self._reference) for text in names)
        return dict(one for some in found for one in some)

    def _reference(self, text: str | ImageReference) -> ImageReference:
        return text if isinstance(text, ImageReference) else naming.reference(self._backing.settings, text)

    async def _image(self, named: ImageReference, digest: Digest, platform: str | None) -> Image:
        machinery = await self._backing.machinery()
        wanted = platform_of(platform)
        manifest = await manifest_for(machinery, named, digest, wanted)
        manifest.require_image()
        documents = Documents.of(manifest, self.storage.load_config(manifest.config.digest))
        require_platform(documents, wanted or self._backing.settings.platform)
        return Image(self._backing, named, digest, documents)


def _storage(settings: Settings) -> ImageStorage:
    return ImageStorage(
        settings.store, budgets=settings.budgets, shared=settings.share_store, maker=settings.store_owner
    )
