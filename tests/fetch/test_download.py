"""One blob into a staged file: every way to fail at every step, who is told what, and what is kept."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing

from layerfs.errors import (
    Denied,
    LayerfsError,
    NotFound,
    RegistryMisbehaved,
    RegistryTimeout,
    SizeMismatch,
    StoreError,
    StoreFull,
    Unreachable,
    WorkerDied,
)
from layerfs.fetch.download import download
from layerfs.fetch.progress import Progress
from layerfs.oci import Repository
from layerfs.store import ImageStorage
from tests.support import images
from tests.support.fake_origin import Delivery, FakeOrigin

LAYER = images.layer(images.file("a", bytes(range(256)) * 4000), compression="none")
BUILT = images.image(LAYER)
BLOB = LAYER.blob
HALF = len(BLOB) // 2
REPOSITORY = Repository("r.example", "a/b")
AWAY = [Delivery(refused=Unreachable("no connection"))] * 5
"""As often as a download without progress is tried again."""


@dataclass(frozen=True)
class Row:
    """What the origin does, and what comes of it."""

    deliveries: list[Delivery]
    error: type[LayerfsError] | None
    kept: int
    """Bytes that the next attempt finds."""
    offsets: list[int]
    """Where the origin was asked to start, that attempt's last."""


def cut(until: int, broken: LayerfsError | None = None) -> Delivery:
    return Delivery(until=until, broken=broken)


ROWS = {
    "well": Row([], None, len(BLOB), [0]),
    "refused: gone": Row([Delivery(refused=NotFound("gone"))], NotFound, 0, [0]),
    "refused: no entry": Row([Delivery(refused=Denied("no"))], Denied, 0, [0]),
    # The origin has tried again for itself: nothing arrived, so trying again here does not help.
    "refused: away": Row([Delivery(refused=Unreachable("away"))], Unreachable, 0, [0]),
    "the downloader died before": Row([Delivery(refused=WorkerDied("killed"))], WorkerDied, 0, [0]),
    "cut, then well": Row([cut(HALF, Unreachable("cut"))], None, len(BLOB), [0, HALF]),
    "silent, then well": Row([cut(HALF, RegistryTimeout("silent"))], None, len(BLOB), [0, HALF]),
    "ends early, then well": Row([cut(HALF)], None, len(BLOB), [0, HALF]),
    "cut twice": Row(
        [cut(HALF, Unreachable("cut")), cut(HALF + 9, Unreachable("cut"))],
        None,
        len(BLOB),
        [0, HALF, HALF + 9],
    ),
    "cut, then away for a while": Row(
        [cut(HALF, Unreachable("cut")), *AWAY[1:]], None, len(BLOB), [0, *[HALF] * 5]
    ),
    "cut, then away for good": Row(
        [cut(HALF, Unreachable("cut")), *AWAY], Unreachable, HALF, [0, *[HALF] * 5, HALF]
    ),
    # The first half is a part, as a range may be answered with; what brings nothing is none.
    "ends early, again and again": Row([cut(HALF)] * 7, RegistryMisbehaved, HALF, [0, *[HALF] * 6, HALF]),
    "cut, then refused": Row(
        [cut(HALF, Unreachable("cut")), Delivery(refused=NotFound("gone"))], NotFound, HALF, [0, HALF, HALF]
    ),
    "the downloader died on the way": Row([cut(HALF, WorkerDied("killed"))], WorkerDied, HALF, [0, HALF]),
    "one byte too many": Row([Delivery(content=BLOB + b"x")], SizeMismatch, 0, [0, 0]),
    "the disk is full": Row([cut(HALF, StoreFull("no space"))], StoreFull, 0, [0, 0]),
    "the disk fails": Row([cut(HALF, StoreError("EIO"))], StoreError, 0, [0, 0]),
    "no ranges there": Row(
        [cut(HALF, Unreachable("cut")), Delivery(from_start=True)], None, len(BLOB), [0, HALF]
    ),
}


async def attempt(storage: ImageStorage, origin: FakeOrigin) -> tuple[Progress, bytes]:
    """Download, and return what the staged file holds then; it is left as it would be."""
    descriptor = LAYER.descriptor()
    progress = Progress(REPOSITORY, descriptor.digest, descriptor.size)
    with storage.stage_layer_download(descriptor.digest, descriptor.size) as staged:
        await download(origin, staged, REPOSITORY, descriptor, progress)
        return progress, staged.staged_path.read_bytes()


@pytest.mark.parametrize("inline", [False, True], ids=["by threads", "inline"])
@pytest.mark.parametrize("name", ROWS)
async def test_a_download(name: str, inline: bool, store: Path, autojump_clock: object) -> None:
    row = ROWS[name]
    storage = ImageStorage(store)
    origin = FakeOrigin((BUILT,), deliveries=list(row.deliveries), inline=inline)
    descriptor = LAYER.descriptor()
    if row.error is not None:
        with pytest.raises(row.error):
            await attempt(storage, origin)
        with storage.stage_layer_download(descriptor.digest, descriptor.size) as staged:
            assert staged.offset == row.kept
        origin.deliveries.clear()
        if not row.kept:
            row = Row([], None, 0, [*row.offsets[:1], 0])
    progress, content = await attempt(storage, origin)
    assert content == BLOB
    assert origin.offsets() == row.offsets
    assert (progress.ended, progress.received) == ("complete", len(BLOB))


async def test_what_arrives_is_told_while_it_does(store: Path) -> None:
    hold = trio.Event()
    deliveries = [Delivery(until=HALF, hold=hold), Delivery()]
    origin = FakeOrigin((BUILT,), deliveries=deliveries, inline=True)
    descriptor = LAYER.descriptor()
    progress = Progress(REPOSITORY, descriptor.digest, descriptor.size)
    with ImageStorage(store).stage_layer_download(descriptor.digest, descriptor.size) as staged:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(download, origin, staged, REPOSITORY, descriptor, progress)
            nursery.cancel_scope.deadline = trio.current_time() + 30
            await trio.testing.wait_all_tasks_blocked()
            assert (progress.phase, progress.ended) == ("downloading", None)
            assert 0 < progress.received < len(BLOB)
            hold.set()
        assert progress.phase == "queued"  # for an extractor
        assert progress.received == staged.offset == len(BLOB)


async def test_a_cancelled_download_keeps_what_arrived(store: Path) -> None:
    storage = ImageStorage(store)
    opened = trio.Event()
    origin = FakeOrigin(
        (BUILT,), deliveries=[Delivery(until=HALF, hold=trio.Event())], on_open=opened.set, inline=True
    )
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt, storage, origin)
            await opened.wait()
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    await attempt(storage, origin)
    assert origin.offsets() == [0, HALF]
