"""A store is kept within its limits while a daemon fetches into it."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from layerfs.errors import StoreError
from layerfs.fetch.progress import Journal
from layerfs.fetch.tasks import background

if TYPE_CHECKING:
    from layerfs.gc.keeper import Keeper

KEEP_PERIOD: Final = 5.0
"""Seconds between two looks whether something was fetched, so that the store may be too large."""

log = logging.getLogger(__name__)


@asynccontextmanager
async def keeping(keeper: "Keeper", journal: Journal) -> AsyncIterator[None]:
    """Keep a store within its limits, which may change, while the block runs.

    Looks at the start, and after each fetch.
    """

    async def keep() -> None:
        seen = None
        while True:
            now = (journal.fetched, keeper.limits)
            if now != seen and keeper.is_limited:
                seen = now
                try:
                    freed = await trio.to_thread.run_sync(keeper.keep, abandon_on_cancel=True)
                    if freed:
                        journal.happening.add("evict", str(keeper.store), size=freed)
                except StoreError as exc:
                    log.warning("the store could not be kept within its limits: %s", exc)
            await trio.sleep(KEEP_PERIOD)

    async with background() as nursery:
        nursery.start_soon(keep)
        yield
