"""How far the work is, told to programs: at most ten times a second of each layer."""

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

import trio

from layerfs.fetch.progress import Journal
from layerfs.oci import Repository
from layerfs.oci.image import ImageLayer
from layerfs.status import Fetching, Underway

Tell = Callable[[Underway], object]

PERIOD: Final = 0.125
"""Seconds between two looks: eight a second, and one more at the end."""


@asynccontextmanager
async def tasks() -> AsyncIterator[trio.Nursery]:
    """Own tasks for a block and cancel them at its end. One error leaves as itself, not in a group."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from group.exceptions[0].__cause__


@asynccontextmanager
async def telling(
    journal: Journal, repository: Repository, layers: Iterable[ImageLayer], tell: Tell | None
) -> AsyncIterator[None]:
    """Call *tell* with the work on *layers* while the block runs, and of each at last that it is done.

    What *tell* raises ends the block.
    """
    told: dict[str, Underway | None] = dict.fromkeys(str(layer.digest) for layer in layers)
    if tell is None or not told:
        yield
        return

    async def watch() -> None:
        while True:
            for found in [progress.underway() for progress in journal.active]:
                if found.digest in told and told[found.digest] != found:
                    told[found.digest] = found
                    tell(found)
            await trio.sleep(PERIOD)

    async with tasks() as nursery:
        nursery.start_soon(watch)
        yield
    for layer in {layer.digest: layer for layer in layers}.values():
        before = told[str(layer.digest)]
        tell(
            Underway(
                repository=str(repository),
                digest=str(layer.digest),
                phase="done",
                received=layer.size,
                size=layer.size,
                since=before.since if before else time.time(),
            )
        )


class Watcher:
    """What a store does, whenever it is something else, for ever."""

    def __init__(self, statistics: Callable[[], Fetching]) -> None:
        self._statistics = statistics
        self._seen: Fetching | None = None

    async def next(self) -> Fetching:
        """Return what is done now, once that is not what was returned last."""
        if self._seen is not None:
            await trio.sleep(PERIOD)
        while (found := self._statistics()) == self._seen:  # noqa: ASYNC110 - nobody is told of each byte
            await trio.sleep(PERIOD)
        self._seen = found
        return found
