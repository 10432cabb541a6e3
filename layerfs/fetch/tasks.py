"""Tasks and turns: errors that cross a nursery as themselves, and the right to work on a digest."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeVar

import trio

from layerfs.errors import LayerfsError, StoreReadOnly, retold
from layerfs.oci import Digest, Image, Repository
from layerfs.oci.image import ImageLayer
from layerfs.store import WORK_SECONDS, ImageStorage
from layerfs.store.locks import ByteLock

T = TypeVar("T")

LOCK_POLL: Final = 0.1
"""Seconds between tries for a byte that another process holds: OFD locks wake nobody."""

LOOK_OUT: Final = 0.25
"""Seconds between looks whether a rival has published."""


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


async def make_once(
    storage: ImageStorage,
    source: str,
    digest: Digest,
    has: Callable[[], Awaitable[bool]],
    make: Callable[[], Awaitable[None]],
) -> bool:
    """Run *make* unless the store has *digest*; False if somebody else made it, before or meanwhile.

    One task of one process works on (*source*, *digest*); the others wait without blocking the loop. Whoever
    works with another source is a rival: the first to publish ends the work of the others. *has* is asked
    often. Raises StoreReadOnly where nothing can be made.
    """
    if await has():
        return False
    if storage.readonly:
        raise _unmakeable(storage, digest)
    made = False
    async with background() as nursery:

        async def look_out() -> None:
            await trio.sleep(LOOK_OUT)
            while not await has():  # noqa: ASYNC110 - no event crosses processes
                await trio.sleep(LOOK_OUT)
            nursery.cancel_scope.cancel()

        nursery.start_soon(look_out)
        async with held(storage.lock(digest, source)), held(storage.locks.presence(digest)):
            if not await has():
                await make()
                made = True
    return made


def _unmakeable(storage: ImageStorage, digest: Digest) -> StoreReadOnly:
    return StoreReadOnly(
        f"{digest}: not in {storage.images_dir}, which may only be read (expected all of the image there); "
        "layerfs pull of the image by the store's owner completes it"
    )


@asynccontextmanager
async def held(lock: ByteLock) -> AsyncIterator[None]:
    """Hold *lock* for the block, and wait for it without blocking the loop. Raises StoreError."""
    deadline = trio.current_time() + WORK_SECONDS
    while not lock.try_acquire():  # no event crosses processes
        if trio.current_time() > deadline:
            raise lock.overdue(WORK_SECONDS)
        await trio.sleep(LOCK_POLL)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def naming(repository: Repository, image: Image, layer: ImageLayer) -> Iterator[None]:
    """Say of an error of the block which layer of which image it is about."""
    try:
        yield
    except LayerfsError as exc:
        place = f"layer {layer.number + 1} of {len(image.layers)} ({layer.digest.shown})"
        raise retold(exc, f"{place} of {repository}@{image.manifest.digest.shown}: {exc.text}") from exc


async def all_of(*jobs: Callable[[], Awaitable[object]], at_once: int | None = None) -> None:
    """Do all *jobs* at the same time. Raises the first LayerfsError, once all have ended.

    No more than *at_once* are under way if that is given, and then none begins after one has failed.
    """
    failures: list[LayerfsError] = []
    turns = trio.Semaphore(at_once or max(1, len(jobs)))

    async def run(job: Callable[[], Awaitable[object]]) -> None:
        async with turns:
            found = None if at_once and failures else await outcome(job())
        if isinstance(found, LayerfsError):
            failures.append(found)

    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(run, job)
    if failures:
        raise failures[0]
