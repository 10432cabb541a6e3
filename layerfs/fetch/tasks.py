"""Errors that cross a nursery as themselves, not in a group. Called by everything here that runs tasks."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from layerfs.errors import LayerfsError

T = TypeVar("T")


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


async def attempt(work: Awaitable[T]) -> T | LayerfsError:
    """Return the error instead of raising it."""
    try:
        return await work
    except LayerfsError as exc:
        return exc
