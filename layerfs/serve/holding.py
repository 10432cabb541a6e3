"""What is being sent is leased, so that nothing removes it meanwhile: whoever was cut off finds it again."""

import logging
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from layerfs.errors import StoreError
from layerfs.oci import Digest
from layerfs.store import ImageStorage

log = logging.getLogger(__name__)


class Holding:
    """A lease for each blob that is being sent, however many readers it has."""

    def __init__(self, storage: ImageStorage) -> None:
        self._storage = storage
        self._readers: Counter[Digest] = Counter()

    @asynccontextmanager
    async def of(self, digest: Digest) -> AsyncIterator[None]:
        """Keep *digest* for the block.

        Where none can be written, on a full disk for instance, it goes without: an open file stays readable.
        """
        name = f"serve-{os.getpid()}-{digest.short_id}"
        self._readers[digest] += 1
        try:
            if self._readers[digest] == 1 and not self._storage.readonly:
                try:
                    await trio.to_thread.run_sync(self._storage.lease, name, (digest,))
                except StoreError as exc:
                    log.info("%s: sent without a lease: %s", digest, exc)
            yield
        finally:
            self._readers[digest] -= 1
            if not self._readers[digest]:
                del self._readers[digest]
                self._release(name)

    def _release(self, name: str) -> None:
        try:
            self._storage.leases.remove(name)
        except StoreError as exc:  # it ends with this process
            log.info("%s: stays until this process ends: %s", name, exc)
