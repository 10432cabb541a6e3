"""One layer or blob: every failure at every step, who is told what, what is kept, what the next attempt does.

The store and the extractors are real; the origin is `tests.support.fake_origin`.
"""

import os
import signal
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from layerfs.errors import (
    BudgetExceeded,
    DiffIdMismatch,
    DigestMismatch,
    InvalidArchive,
    LayerfsError,
    NotFound,
    PathEscape,
    SizeMismatch,
    StoreFull,
    Unreachable,
    WorkerDied,
)
from layerfs.extract.client import ExtractorPool
from layerfs.fetch.download import download
from layerfs.fetch.layers import BlobFiles, LayerWork
from layerfs.fetch.parts import BlobParts
from layerfs.fetch.progress import Journal
from layerfs.fetch.workers import Workers
from layerfs.layer.budgets import Budgets
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.oci.image import ImageLayer
from layerfs.store import ImageStorage
from tests.support import images
from tests.support.clients import children
from tests.support.fake_origin import Delivery, FakeOrigin
from tests.support.images import BuiltLayer

REPOSITORY = Repository("r.example", "a/b")
GOOD = images.layer(images.file("a", os.urandom(1 << 20)), images.file("b", b"b"))
BLOB = GOOD.blob
HALF = len(BLOB) // 2
BROKEN = images.layer(archive=os.urandom(300_000), compression="none")
ESCAPING = images.layer(images.file("../x", b"x"))
OTHER = images.layer(images.file("a", os.urandom(1 << 20)), compression="none").blob
UNLIMITED = Budgets()
AWAY = [Delivery(refused=Unreachable("no connection"))] * 5


@dataclass
class Scene:
    """A store, an origin, and the work between them."""

    pool: ExtractorPool
    path: Path
    origin: FakeOrigin
    budgets: Budgets = UNLIMITED
    blob_files: BlobFiles | None = None
    journal: Journal = field(default_factory=Journal)

    @property
    def storage(self) -> ImageStorage:
        return ImageStorage(self.path)

    @property
    def work(self) -> LayerWork:
        workers = Workers(self.pool, 2, str)
        parts = BlobParts(self.storage, self.origin)
        return LayerWork(
            self.storage,
            self.origin,
            partial(download, self.origin, parts=parts),
            workers,
            self.budgets,
            self.journal,
            parts,
            self.blob_files,
        )

    def kept(self, layer: BuiltLayer) -> list[str]:
        """Say what the store has of *layer*, and nothing else: tree, blob, a part of one."""
        found = ["tree"] if self.storage.open_layer(layer.digest) else []
        names = [path.name for folder in ("layers", "extracted") for path in (self.path / folder).iterdir()]
        assert not [name for name in names if name.endswith(".extracting")]
        found += ["blob"] if self.storage.open_blob(layer.digest) else []
        return found + ["part"] * sum(name.endswith(".downloading") for name in names)


@pytest.fixture
def scene(pool: ExtractorPool, store: Path) -> Scene:
    return Scene(pool, store, FakeOrigin((images.image(GOOD, BROKEN, ESCAPING),)))


def of_an_image(layer: BuiltLayer, **changes: object) -> ImageLayer:
    values = {"number": 0, "descriptor": layer.descriptor(), "diff_id": layer.diff_id}
    return ImageLayer(**(values | changes))  # type: ignore[arg-type]  # by name


@dataclass(frozen=True)
class Row:
    """What the origin does, and what comes of it; the next attempt succeeds unless the image is bad."""

    error: type[LayerfsError] | None
    kept: list[str]
    deliveries: list[Delivery] = field(default_factory=list)
    layer: BuiltLayer = GOOD
    budgets: Budgets = UNLIMITED
    next_offsets: list[int] = field(default_factory=lambda: [0])
    """Where the next attempt asks the origin to start; nowhere if it needs no origin."""
    next_error: type[LayerfsError] | None = None


CUT = Delivery(until=HALF, broken=Unreachable("cut"))
LAYER_ROWS = {
    "well": Row(None, ["tree", "blob"], next_offsets=[]),
    "broken off, then well": Row(None, ["tree", "blob"], [CUT], next_offsets=[]),
    "a server without ranges": Row(None, ["tree", "blob"], [CUT, Delivery(from_start=True)], next_offsets=[]),
    "gone": Row(NotFound, [], [Delivery(refused=NotFound("gone"))]),
    "broken off for good": Row(Unreachable, ["part"], [CUT, *AWAY], next_offsets=[HALF]),
    "the downloader died": Row(
        WorkerDied, ["part"], [Delivery(until=HALF, broken=WorkerDied("x"))], next_offsets=[HALF]
    ),
    "the disk is full of the blob": Row(StoreFull, [], [Delivery(until=HALF, broken=StoreFull("x"))]),
    "other bytes, a good archive": Row(DigestMismatch, [], [Delivery(content=OTHER[: len(BLOB)])]),
    "other bytes, no archive": Row(DigestMismatch, [], [Delivery(content=bytes(reversed(BLOB)))]),
    "one bit": Row(DigestMismatch, [], [Delivery(content=images.flip_byte(BLOB, HALF))]),
    "one byte too many": Row(SizeMismatch, [], [Delivery(content=BLOB + b"x")]),
    # The bytes are the right ones: the image is bad, and stays so without another download.
    "no archive": Row(InvalidArchive, ["blob"], layer=BROKEN, next_offsets=[], next_error=InvalidArchive),
    "an escape": Row(PathEscape, ["blob"], layer=ESCAPING, next_offsets=[], next_error=PathEscape),
    # Nobody has to download the rest of what is too large.
    "too large": Row(BudgetExceeded, [], budgets=Budgets(max_layer_bytes=1000), next_error=BudgetExceeded),
}


@pytest.mark.parametrize("name", LAYER_ROWS)
async def test_a_layer(scene: Scene, name: str, autojump_clock: object) -> None:
    row = LAYER_ROWS[name]
    scene.origin.deliveries = list(row.deliveries)
    scene.budgets = row.budgets
    layer = of_an_image(row.layer)
    await expect(row.error, scene, layer)
    assert scene.kept(row.layer) == row.kept
    assert scene.journal.active == []
    assert [entry.error for entry in scene.journal.failures] == ([row.error.__name__] if row.error else [])

    scene.origin.asked.clear()
    scene.origin.deliveries.clear()
    await expect(row.next_error, scene, layer)
    assert scene.origin.offsets() == row.next_offsets
    if row.next_error is None:
        assert scene.kept(row.layer) == ["tree", "blob"]


async def expect(error: type[LayerfsError] | None, scene: Scene, layer: ImageLayer) -> None:
    if error is None:
        await scene.work.layer(REPOSITORY, layer)
    else:
        with pytest.raises(error):
            await scene.work.layer(REPOSITORY, layer)


BLOB_ROWS = {
    name: LAYER_ROWS[name]
    for name in LAYER_ROWS
    if LAYER_ROWS[name].layer is GOOD and name not in ("well", "too large")
}


@pytest.mark.parametrize("name", BLOB_ROWS)
async def test_a_blob_alone(scene: Scene, name: str, autojump_clock: object) -> None:
    """The same, without a tree; nothing is extracted, so no archive can be bad."""
    row = BLOB_ROWS[name]
    scene.origin.deliveries = list(row.deliveries)
    descriptor = GOOD.descriptor()
    if row.error is not None:
        with pytest.raises(row.error):
            await scene.work.blob(REPOSITORY, descriptor)
        assert scene.kept(GOOD) == row.kept
        assert [entry.error for entry in scene.journal.failures] == [row.error.__name__]
        scene.origin.asked.clear()
        scene.origin.deliveries.clear()
    await scene.work.blob(REPOSITORY, descriptor)
    if row.error is not None:
        assert scene.origin.offsets() == row.next_offsets
    assert scene.kept(GOOD) == ["blob"]
    scene.origin.asked.clear()
    await scene.work.blob(REPOSITORY, descriptor)
    assert scene.origin.asked == []


async def test_a_claim_of_another_diff_id_is_that_images_fault_alone(scene: Scene) -> None:
    lying = of_an_image(GOOD, diff_id=Digest.of(b"other"))
    for _ in range(2):
        with pytest.raises(DiffIdMismatch, match="as the image's config says"):
            await scene.work.layer(REPOSITORY, lying)
        assert scene.kept(GOOD) == ["blob"]
    await scene.work.layer(REPOSITORY, of_an_image(GOOD))
    with pytest.raises(DiffIdMismatch):
        await scene.work.layer(REPOSITORY, lying)
    assert scene.kept(GOOD) == ["tree", "blob"]
    assert scene.origin.offsets() == [0], "the bytes were fetched more than once"


async def test_a_killed_extractor_fails_the_layer_and_keeps_what_arrived(scene: Scene) -> None:
    with ExtractorPool(1) as scene.pool:
        await _killed(scene)


async def _killed(scene: Scene) -> None:
    large = images.layer(images.file("a", os.urandom(3 << 20)))  # so much that half of it is worth a worker
    scene.origin.images = (images.image(large),)
    scene.origin.deliveries = [Delivery(until=len(large.blob) // 2, hold=trio.Event())]

    async def kill() -> None:
        while True:
            await trio.to_thread.run_sync(time.sleep, 0.05)
            for worker in children("layerfs.extract.worker"):
                os.kill(worker, signal.SIGKILL)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        with pytest.raises(WorkerDied):
            await scene.work.layer(REPOSITORY, of_an_image(large))
        nursery.cancel_scope.cancel()
    scene.origin.deliveries.clear()
    await scene.work.layer(REPOSITORY, of_an_image(large))
    assert scene.kept(large) == ["tree", "blob"]


async def test_who_is_cancelled_keeps_what_arrived_and_lets_the_next_one_work(scene: Scene) -> None:
    opened = trio.Event()
    scene.origin.on_open = opened.set
    scene.origin.inline = True
    scene.origin.deliveries = [Delivery(until=HALF, hold=trio.Event())]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.work.layer, REPOSITORY, of_an_image(GOOD))
        await opened.wait()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert scene.kept(GOOD) == ["part"]
    await scene.work.layer(REPOSITORY, of_an_image(GOOD))
    assert scene.origin.offsets() == [0, HALF]
    assert scene.kept(GOOD) == ["tree", "blob"]


@pytest.mark.allow_warnings
async def test_a_damaged_blob_in_the_store_is_fetched_again(scene: Scene) -> None:
    await scene.work.blob(REPOSITORY, GOOD.descriptor())
    blob = scene.storage.open_blob(GOOD.digest)
    assert blob is not None
    blob.path.write_bytes(images.flip_byte(BLOB, HALF))
    await scene.work.layer(REPOSITORY, of_an_image(GOOD))
    assert scene.origin.offsets() == [0, 0]
    assert blob.path.read_bytes() == BLOB
    assert scene.kept(GOOD) == ["tree", "blob"]


async def test_a_manifest_that_lies_about_a_size_harms_no_blob(scene: Scene) -> None:
    await scene.work.blob(REPOSITORY, GOOD.descriptor())
    honest = GOOD.descriptor()
    lying = of_an_image(GOOD, descriptor=Descriptor(honest.media_type, honest.digest, honest.size + 1))
    with pytest.raises(SizeMismatch):
        await scene.work.layer(REPOSITORY, lying)
    assert scene.kept(GOOD) == ["blob"]
    assert scene.origin.offsets() == [0]


@pytest.mark.parametrize("blob_alone", [True, False])
async def test_a_file_of_this_machine_is_taken_as_the_blob(
    scene: Scene, tmp_path: Path, blob_alone: bool
) -> None:
    (tmp_path / "file").write_bytes(BLOB)
    scene.blob_files = lambda _: tmp_path / "file"
    if blob_alone:
        await scene.work.blob(REPOSITORY, GOOD.descriptor())
    else:
        await scene.work.layer(REPOSITORY, of_an_image(GOOD))
    assert scene.kept(GOOD) == (["blob"] if blob_alone else ["tree", "blob"])
    assert scene.origin.asked == []


async def test_a_file_with_other_bytes_is_not_taken(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(images.flip_byte(BLOB))
    scene.blob_files = lambda _: tmp_path / "file"
    with pytest.raises(DigestMismatch):
        await scene.work.layer(REPOSITORY, of_an_image(GOOD))
    assert scene.kept(GOOD) == []
    assert (tmp_path / "file").exists()


@pytest.mark.parametrize("offered", ["a file of another size", "none"])
async def test_without_a_file_that_fits_the_origin_is_asked(
    scene: Scene, tmp_path: Path, offered: str
) -> None:
    (tmp_path / "file").write_bytes(b"short")
    scene.blob_files = lambda _: None if offered == "none" else tmp_path / "file"
    await scene.work.layer(REPOSITORY, of_an_image(GOOD))
    assert scene.origin.offsets() == [0]


async def test_who_waited_for_another_process_finds_its_work_done(
    scene: Scene, autojump_clock: object
) -> None:
    lock = scene.storage.lock(GOOD.digest, REPOSITORY.registry)
    assert lock.try_acquire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.work.layer, REPOSITORY, of_an_image(GOOD))
        nursery.start_soon(scene.work.blob, REPOSITORY, GOOD.descriptor())
        await trio.sleep(1)
        assert scene.origin.asked == []
        assert scene.journal.active == []
        with scene.storage.stage_layer_download(GOOD.digest, GOOD.size) as staged:
            staged.write(BLOB)
            staged.commit()
        lock.release()
    assert scene.origin.asked == []
    assert scene.kept(GOOD) == ["tree", "blob"]
