"""The face for asyncio: cancellation and deadlines as there, and nothing left of what was cancelled."""

import asyncio
import contextlib
import io
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from layerfs.api.on_asyncio import Store
from layerfs.errors import NotFound, StoreError
from layerfs.status import Fetching, Underway
from tests.api.conftest import IMAGE
from tests.support.registry import Registry


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_an_image_is_pulled_and_read(store: Path, reference: str) -> None:
    async def main() -> None:
        told: list[Underway] = []
        async with Store.open(store) as opened:
            image = await opened.pull(reference, progress=told.append)
            contents = await asyncio.gather(*(image.read_bytes("etc/self") for _ in range(20)))
            assert contents == [b"welcome"] * 20
            assert [entry.path async for entry in image.walk()][:2] == ["/", "/etc"]
            stream = io.BytesIO()
            await image.export(stream)
            assert stream.getvalue()
            async with await opened.lease("job", [image]):
                assert (await opened.gc()).freed == 0
            with pytest.raises(NotFound):
                await opened.pull(f"{reference}-nothing")
        assert {one.phase for one in told} >= {"done"}

    run(main())


@pytest.mark.needs_root
def test_a_root_is_mounted_for_a_block(pulled: tuple[Path, str], mountpoint: Path) -> None:
    store, reference = pulled

    async def main() -> None:
        async with Store.open(store) as opened:
            image = await opened.image(reference)
            async with await image.mount(mountpoint):
                assert "etc" in os.listdir(mountpoint)
            assert os.listdir(mountpoint) == []

    run(main())


def test_a_timeout_ends_a_pull_and_the_store_goes_on(store: Path, pausing: Registry) -> None:
    reference = str(pausing.push("api/asyncio", "1", IMAGE))

    async def main() -> None:
        async with Store.open(store) as opened:
            with pausing.paused(), pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await opened.pull(reference)
            assert (await opened.pull(reference)).digest == IMAGE.digest

    run(main())


@pytest.mark.needs_root
def test_a_mount_whose_caller_was_cancelled_is_undone(pulled: tuple[Path, str], mountpoint: Path) -> None:
    store, reference = pulled

    async def main() -> None:
        async with Store.open(store) as opened:
            image = await opened.pull(reference)
            for delay in range(30):
                task = asyncio.create_task(image.mount(mountpoint))
                for _ in range(delay):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await (await task).close()
        assert os.listdir(mountpoint) == []

    run(main())


def test_events_end_with_their_reader(store: Path, reference: str) -> None:
    async def main() -> None:
        async with Store.open(store) as opened:
            events = opened.events()
            assert await anext(events) == Fetching(waiting=0, fetching=(), errors=())
            await opened.pull(reference)
            assert (await anext(events)).fetched == 2

    run(main())


def test_what_cannot_be_opened_raises_and_ends_its_thread() -> None:
    async def main() -> None:
        with pytest.raises(StoreError):
            async with Store.open("/dev/null/nothing"):
                pass

    run(main())
