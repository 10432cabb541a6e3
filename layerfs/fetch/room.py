"""Work that a full disk or a collection fails: once more if that may help, and else the numbers."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from layerfs.errors import NotInStore, StoreFull
from layerfs.store import ImageStorage
from layerfs.store.measure import room_left

MakeRoom = Callable[[float], bool]
"""Removes what may go from the store; False if nothing does, and nothing has since then. Blocking."""

T = TypeVar("T")

log = logging.getLogger(__name__)


def no_room(_: float) -> bool:
    """Remove nothing."""
    return False


async def with_room(storage: ImageStorage, make_room: MakeRoom, attempt: Callable[[], Awaitable[T]]) -> T:
    """Return what *attempt* does; once more if the disk was full and something could go.

    Raises StoreFull with what the disk has when nothing of the attempt is left on it.
    """
    began = time.monotonic()
    try:
        return await attempt()
    except StoreFull as exc:
        if not await trio.to_thread.run_sync(make_room, began):
            raise await _with_numbers(exc, storage) from exc
        log.info("once more, with room that was made: %s", exc)
    try:
        return await attempt()
    except StoreFull as exc:
        raise await _with_numbers(exc, storage) from exc


async def with_what_is_here(attempt: Callable[[], Awaitable[T]]) -> T:
    """Return what *attempt* does; once more if a collection took something between its look and its use."""
    try:
        return await attempt()
    except NotInStore as exc:
        log.info("once more: %s", exc)
    return await attempt()


async def _with_numbers(error: StoreFull, storage: ImageStorage) -> StoreFull:
    left = await trio.to_thread.run_sync(room_left, storage.images_dir)
    return StoreFull(f"{error}: needs more than {storage.images_dir} has, {left}")
