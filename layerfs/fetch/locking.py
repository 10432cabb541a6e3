"""The right to work on a digest, among all processes of a store, without blocking the loop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from layerfs.oci import Digest
from layerfs.store import ImageStorage

LOCK_POLL = 0.1
"""Seconds between tries for a byte that another process holds: OFD locks wake nobody."""


@asynccontextmanager
async def holding(storage: ImageStorage, digest: Digest) -> AsyncIterator[None]:
    """Hold the byte of *digest*. Whoever gets it looks at the store again before working."""
    lock = storage.lock(digest)
    while not lock.try_acquire():  # noqa: ASYNC110 - no event crosses processes
        await trio.sleep(LOCK_POLL)
    try:
        yield
    finally:
        lock.release()
