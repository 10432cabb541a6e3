"""Images that somebody waits for: what is there of them is leased, so that nothing removes it meanwhile."""

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from layerfs.errors import StoreError
from layerfs.oci import Digest, Image
from layerfs.store import ImageStorage


class Wants:
    """Who waits for layers of which stack: a lease a stack, not one a caller."""

    def __init__(self, storage: ImageStorage) -> None:
        self._storage = storage
        self._waiting: Counter[Digest] = Counter()

    @asynccontextmanager
    async def of(self, image: Image) -> AsyncIterator[None]:
        """Keep the layers and the cover of *image* for the block, as far as they are there."""
        stack = image.stack
        name = f"fetch-{os.getpid()}-{id(self):x}-{stack.short_id}"
        self._waiting[stack] += 1
        try:
            if self._waiting[stack] == 1:
                digests = (*(layer.digest for layer in image.layers), stack)
                with suppress(StoreError):  # a full disk, or one that may only be read
                    await trio.to_thread.run_sync(self._storage.lease, name, digests)
            yield
        finally:
            self._waiting[stack] -= 1
            if not self._waiting[stack]:
                del self._waiting[stack]
                with suppress(StoreError):
                    self._storage.leases.remove(name)
