"""What stands behind an open store of the API: bytes, who fetches into them, and what is kept meanwhile."""

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from layerfs import app as wiring
from layerfs.api.facts import ImageFacts
from layerfs.api.lazystack import NotLazy
from layerfs.api.machinery import Machinery, swept
from layerfs.api.mounting import Remains
from layerfs.bells import bell_mount
from layerfs.errors import StoreError
from layerfs.fetch.fetcher import Fetcher
from layerfs.fetch.laziness import Laziness
from layerfs.needs import Need
from layerfs.settings import Settings
from layerfs.status import Fetching
from layerfs.store import ImageStorage

if TYPE_CHECKING:
    from layerfs.oci import Digest
    from layerfs.store.leases import HeldLease

_IDLE = Fetching(waiting=0, fetching=(), errors=())


class Backing:
    """One open store. What fetches is started in *nursery* when something has to be fetched."""

    def __init__(self, settings: Settings, storage: ImageStorage, nursery: trio.Nursery) -> None:
        self.settings = settings
        self.storage = storage
        self.laziness = Laziness(on=settings.lazy == "auto", whole=settings.verify_whole)
        self.keeper = wiring.keeper_of(settings, storage)
        self.remains = Remains()
        self._nursery = nursery
        self._turn = trio.Lock()
        self._fetcher: Fetcher | None = None
        self._kept: dict[tuple[Digest, Digest], HeldLease] = {}

    def statistics(self) -> Fetching:
        """Return what is being done and was done since the store was opened."""
        return _IDLE if self._fetcher is None else self._fetcher.statistics()

    async def machinery(self) -> Machinery:
        """Return what fetches; the first time it is started. Raises InvalidSettings."""
        async with self._turn:
            if self._fetcher is None:
                self._fetcher = await self._nursery.start(self._serve)
        return Machinery(self.storage, self._fetcher, self.settings.platform, self.keeper)

    async def obtain(self, need: Need) -> None:
        """Return once *need* is met. Raises LayerfsError."""
        await (await self.machinery()).provider.obtain(need)

    async def keep(self, image: ImageFacts) -> None:
        """Keep an image from removal until the store is closed, as far as the disk lets that be noted."""
        view = image.documents.view
        key = (image.digest, view)
        if key in self._kept or self.storage.readonly:
            return
        tocs = [layer.key.toc for layer in image.layers if layer.key.toc is not None]
        layers = [layer.digest for layer in image.layers]
        digests = (image.digest, image.documents.manifest.digest, image.documents.stack, view, *tocs, *layers)
        name = f"api-{os.getpid()}-{id(self):x}-{image.digest.short_id}-{view.short_id}"
        with suppress(StoreError):  # a full disk: what is there already is good enough
            self._kept[key] = await trio.to_thread.run_sync(self.storage.lease, name, digests)

    async def find_bell(self) -> str:
        """Return where a mount of the store is that can be asked for files. Raises NotLazy."""
        found = await trio.to_thread.run_sync(bell_mount, self.storage.images_dir)
        if found is None:
            raise NotLazy(
                f"no mount serves {self.storage.images_dir} (expected one: layerfs mount DIRECTORY)"
            )
        return found

    def let_go(self) -> None:
        """End what keeps images."""
        for lease in self._kept.values():
            with suppress(StoreError):
                lease.release()
        self._kept.clear()

    async def _serve(self, *, task_status: trio.TaskStatus[Fetcher]) -> None:
        async with (
            wiring.providing(self.settings, self.storage, self.keeper) as provider,
            swept(self.storage),
        ):
            task_status.started(provider)
            await trio.sleep_forever()
