"""Tasks and turns: errors that cross a nursery as themselves, and the right to work on a digest."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import trio

from layerfs.errors import LayerfsError
from layerfs.oci import Digest
from layerfs.store import ImageStorage

T = TypeVar("T")

LOCK_POLL: Final = 0.1
"""Seconds between tries for a byte that another process holds: OFD locks wake nobody."""


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """Own tasks for a block, and cancel them at its end. A LayerfsError of the block leaves as itself."""
    failure: LayerfsError | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except LayerfsError as exc:
            failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def outcome(work: Awaitable[T]) -> T | LayerfsError:
    """Return what *work* returns, and the LayerfsError that it raises."""
    try:
        return await work
    except LayerfsError as exc:
        return exc


@asynccontextmanager
async def holding(storage: ImageStorage, digest: Digest) -> AsyncIterator[None]:
    """Hold the byte of *digest* among all processes of a store, waiting without blocking the loop.

    Whoever gets it looks at the store again before working.
    """
    lock = storage.lock(digest)
    while not lock.try_acquire():  # noqa: ASYNC110 - no event crosses processes
        await trio.sleep(LOCK_POLL)
    try:
        yield
    finally:
        lock.release()
