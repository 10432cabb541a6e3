"""Each kind of need is met, once; who gives up harms nobody; all hear of a failure, and none is kept."""

import inspect
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from layerfs import needs
from layerfs.errors import (
    Denied,
    DiffIdMismatch,
    InvalidArchive,
    LayerfsError,
    NotFound,
    Offline,
    RateLimited,
    RegistryMisbehaved,
    RegistryTimeout,
    StoreError,
    StoreFull,
    Unreachable,
)
from layerfs.extract.client import ExtractorPool
from layerfs.fetch.fetcher import Fetcher
from layerfs.fetch.opening import open_fetcher
from layerfs.layer.budgets import Budgets
from layerfs.needs import (
    BlobNeed,
    DocumentNeed,
    FileNeed,
    LayersNeed,
    Need,
    StackNeed,
    TagNeed,
    TocNeed,
    UnreadNeed,
    WayNeed,
)
from layerfs.oci import Digest, Image, ImageConfig, Platform, Repository
from layerfs.store import ImageStorage
from tests.support import images
from tests.support.clients import wait_until
from tests.support.fake_origin import Delivery, FakeOrigin

REPOSITORY = Repository("r.example", "a/b")
TAG = REPOSITORY.with_tag("1")
PLATFORM = Platform("linux", "amd64")
BASE, TOP = (images.layer(images.file(name, os.urandom(200_000))) for name in ("base", "top"))
BROKEN = images.layer(archive=os.urandom(100_000), compression="none")
BUILT = images.image(BASE, TOP, platform=PLATFORM)
DAMAGED = images.image(BASE, BROKEN, TOP, platform=PLATFORM)


@dataclass
class Scene:
    """A store and an origin; `fetching` puts a fetcher between them."""

    pool: ExtractorPool
    path: Path
    origin: FakeOrigin

    @property
    def storage(self) -> ImageStorage:
        return ImageStorage(self.path)

    @asynccontextmanager
    async def fetching(self) -> AsyncIterator[Fetcher]:
        async with open_fetcher(
            self.storage, self.origin, self.pool, platform=PLATFORM, budgets=Budgets(), workers=2
        ) as fetcher:
            yield fetcher

    async def image(self, fetcher: Fetcher, built: images.BuiltImage = BUILT) -> Image:
        manifest = await fetcher.image(REPOSITORY, built.digest)
        return Image.of(manifest, self.storage.load_config(manifest.config.digest))

    def has_trees(self) -> list[bool]:
        return [self.storage.open_layer(layer.digest) is not None for layer in (BASE, TOP)]


@pytest.fixture
def scene(pool: ExtractorPool, store: Path) -> Scene:
    return Scene(pool, store, FakeOrigin((DAMAGED, BUILT)))


# Every kind of need


def _is_met(kind: type[Need], scene: Scene) -> bool:
    storage = scene.storage
    if kind is TagNeed:
        return storage.refs.read(REPOSITORY.with_tag("1")) is not None
    if kind in (DocumentNeed, UnreadNeed, WayNeed):
        return storage.has_manifest(BUILT.digest) and storage.has_config(BUILT.config_digest)
    if kind in (LayersNeed, TocNeed):  # no layer here is lazy: tests/fetch/test_lazy.py
        return scene.has_trees() == [False, True]
    if kind is StackNeed:
        return scene.has_trees() == [True, True] and storage.cover([BASE.digest, TOP.digest]) is not None
    return storage.open_blob(TOP.digest) is not None and scene.has_trees() == [False, False]


def _need(kind: type[Need], image: Image) -> Need:
    needs: dict[type[Need], Need] = {
        TagNeed: TagNeed(TAG),
        DocumentNeed: DocumentNeed(REPOSITORY, BUILT.digest),
        UnreadNeed: UnreadNeed(REPOSITORY, BUILT.digest),
        WayNeed: WayNeed(REPOSITORY, BUILT.digest),
        LayersNeed: LayersNeed(REPOSITORY, image, (1,)),
        StackNeed: StackNeed(REPOSITORY, image),
        BlobNeed: BlobNeed(REPOSITORY, TOP.descriptor()),
        TocNeed: TocNeed(REPOSITORY, image, (1,)),
    }
    return needs[kind]


KINDS = [
    kind
    for _, kind in inspect.getmembers(needs, inspect.isclass)
    if issubclass(kind, Need) and kind not in (Need, FileNeed)
]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_need_is_met_and_once(scene: Scene, kind: type[Need]) -> None:
    async with scene.fetching() as fetcher:
        need = _need(kind, await scene.image(fetcher))
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(fetcher.obtain, need)
        assert _is_met(kind, scene)
        assert fetcher.waiting == 0
        assert not fetcher.journal.failures
    asked = scene.origin.asked
    assert len(asked) == len(set(asked)), "something was asked for twice"


class Unheard(Need):
    """A need of no kind that is met."""

    repository = Repository("x.example", "a/b")


async def test_a_need_that_nobody_knows_is_an_error_at_once(scene: Scene) -> None:
    async with scene.fetching() as fetcher:
        with pytest.raises(NotImplementedError):
            await fetcher.obtain(Unheard())
        assert fetcher.waiting == 0


# Callers that give up, and failures


async def test_who_gives_up_ends_no_work_that_others_wait_for(scene: Scene) -> None:
    hold = trio.Event()
    scene.origin.deliveries = [Delivery(hold=hold)]
    need = BlobNeed(REPOSITORY, TOP.descriptor())
    async with scene.fetching() as fetcher, trio.open_nursery() as nursery:
        with trio.move_on_after(0.2):
            await fetcher.obtain(need)
        nursery.start_soon(fetcher.obtain, need)
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert fetcher.waiting == 1
        hold.set()
    assert scene.storage.open_blob(TOP.digest) is not None
    assert scene.origin.offsets() == [0]


async def test_a_failure_is_told_to_all_who_wait_and_to_the_journal_once(scene: Scene) -> None:
    scene.origin.deliveries = [Delivery(refused=NotFound("gone"))]
    need = BlobNeed(REPOSITORY, TOP.descriptor())
    told: list[LayerfsError] = []

    async def obtain(fetcher: Fetcher) -> None:
        with pytest.raises(NotFound, match="gone") as caught:
            await fetcher.obtain(need)
        told.append(caught.value)

    async with scene.fetching() as fetcher:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(obtain, fetcher)
            nursery.start_soon(obtain, fetcher)
        assert len(set(map(id, told))) == 2
        assert [entry.error for entry in fetcher.journal.failures] == ["NotFound"]
        await fetcher.obtain(need)  # nothing remembers it
    assert scene.storage.open_blob(TOP.digest) is not None


@pytest.mark.parametrize("error", [Unreachable, NotFound, Denied, StoreFull])
async def test_a_document_that_cannot_be_had_is_told_and_noted(
    scene: Scene, error: type[LayerfsError]
) -> None:
    scene.origin.failures["manifest"] = [error("planned")] * 2
    async with scene.fetching() as fetcher:
        with pytest.raises(error, match="planned"):
            await fetcher.obtain(DocumentNeed(REPOSITORY, BUILT.digest))
        with pytest.raises(error, match="planned"):
            await fetcher.image(REPOSITORY, BUILT.digest)
        assert [entry.error for entry in fetcher.journal.failures] == [error.__name__] * 2
        assert (await fetcher.image(REPOSITORY, BUILT.digest)).digest == BUILT.digest


async def test_one_bad_layer_fails_the_stack_once_all_others_are_there(scene: Scene) -> None:
    async with scene.fetching() as fetcher:
        image = await scene.image(fetcher, DAMAGED)
        with pytest.raises(InvalidArchive):
            await fetcher.obtain(StackNeed(REPOSITORY, image))
        assert scene.has_trees() == [True, True]
        assert scene.storage.cover([layer.digest for layer in image.layers]) is None


async def test_an_image_that_lies_about_a_layer_fails_no_honest_one(scene: Scene) -> None:
    async with scene.fetching() as fetcher:
        honest = await scene.image(fetcher)
        claims = (Digest.of(b"lie"), *honest.config.diff_ids[1:])
        lying = Image(honest.manifest, _with_diff_ids(honest, claims))
        failed: list[LayerfsError] = []

        async def obtain(image: Image) -> None:
            try:
                await fetcher.obtain(LayersNeed(REPOSITORY, image, (0,)))
            except DiffIdMismatch as exc:
                assert image is lying
                failed.append(exc)

        async with trio.open_nursery() as nursery:
            for image in (lying, honest, lying):
                nursery.start_soon(obtain, image)
        assert len(failed) == 2
        assert scene.has_trees()[0]


def _with_diff_ids(image: Image, claims: tuple[Digest, ...]) -> ImageConfig:
    return msgspec.structs.replace(image.config, diff_ids=claims)


# Tags


AWAY = [Unreachable, RegistryTimeout, RateLimited, RegistryMisbehaved, Offline]


@pytest.mark.allow_warnings
@pytest.mark.parametrize("error", [*AWAY, Denied, NotFound, StoreError])
async def test_a_pinned_tag_keeps_its_pin_while_its_registry_is_away(
    scene: Scene, error: type[LayerfsError]
) -> None:
    scene.origin.failures["resolve"] = [error("planned")]
    scene.storage.refs.write(REPOSITORY.with_tag("1"), Digest.of(b"old"))
    async with scene.fetching() as fetcher:
        if error in AWAY:
            await fetcher.obtain(TagNeed(TAG))
        else:  # it has answered
            with pytest.raises(error):
                await fetcher.obtain(TagNeed(TAG))
    entry = scene.storage.refs.read(REPOSITORY.with_tag("1"))
    assert entry is not None
    assert entry.digest == Digest.of(b"old")


@pytest.mark.parametrize("error", AWAY)
async def test_a_tag_without_a_pin_cannot_be_guessed(scene: Scene, error: type[LayerfsError]) -> None:
    scene.origin.failures["resolve"] = [error("planned")]
    async with scene.fetching() as fetcher:
        with pytest.raises(error, match="planned"):
            await fetcher.obtain(TagNeed(TAG))
        assert [entry.what for entry in fetcher.journal.failures] == [str(TAG)]


async def test_who_asks_anew_gets_no_old_pin(scene: Scene) -> None:
    """As `layerfs pull` does."""
    scene.storage.refs.write(REPOSITORY.with_tag("1"), Digest.of(b"old"))
    scene.origin.failures["resolve"] = [Unreachable("planned")]
    async with scene.fetching() as fetcher:
        with pytest.raises(Unreachable, match="planned"):
            await fetcher.resolve(TAG)
        assert await fetcher.resolve(TAG) == BUILT.digest
    entry = scene.storage.refs.read(REPOSITORY.with_tag("1"))
    assert entry is not None
    assert entry.digest == BUILT.digest


# The end, and what goes on beside


async def test_leaving_cancels_the_work_and_keeps_what_arrived(scene: Scene) -> None:
    opened = trio.Event()
    scene.origin.on_open = opened.set
    scene.origin.inline = True
    half = TOP.size // 2
    scene.origin.deliveries = [Delivery(until=half, hold=trio.Event())]
    need = BlobNeed(REPOSITORY, TOP.descriptor())
    async with trio.open_nursery() as nursery, scene.fetching() as fetcher:
        nursery.start_soon(fetcher.obtain, need)
        await opened.wait()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    async with scene.fetching() as fetcher:
        await fetcher.obtain(need)
    assert scene.origin.offsets() == [0, half]


async def test_an_error_of_the_block_leaves_as_itself(scene: Scene) -> None:
    with pytest.raises(Denied, match="by the block"):
        async with scene.fetching():
            raise Denied("by the block")


async def test_published_layers_become_durable_by_themselves(scene: Scene) -> None:
    def is_durable() -> bool:
        layer = scene.storage.open_layer(BASE.digest)
        return layer is not None and layer.record.state == "durable"

    async with scene.fetching() as fetcher:
        await fetcher.obtain(StackNeed(REPOSITORY, await scene.image(fetcher)))
        await trio.to_thread.run_sync(wait_until, is_durable)


async def test_a_daemon_sweeps_what_others_left(scene: Scene) -> None:
    leftover = scene.storage.images_dir / "extracted" / f"sha256-{'0' * 64}.{'ab' * 16}.extracting"
    (leftover / "d").mkdir(parents=True)
    async with scene.fetching() as fetcher:
        fetcher.sweep_soon()
        await trio.to_thread.run_sync(wait_until, lambda: not leftover.exists())


async def test_errors_of_a_broken_layer_name_the_layer(store: Path, pool: ExtractorPool) -> None:
    """Which layer of which image, by its place and the start of its digest."""
    good = images.layer(images.file("a"))
    broken = images.layer(archive=b"no archive" * 1000)
    image = images.image(good, broken)
    repository = Repository("r.example", "a/b")
    options = {"platform": Platform.of_this_machine(), "budgets": Budgets(), "workers": 2}
    async with open_fetcher(ImageStorage(store), FakeOrigin((image,)), pool, **options) as fetcher:  # type: ignore[arg-type]
        manifest = await fetcher.image(repository, image.digest)
        whole = Image.of(manifest, ImageStorage(store).load_config(manifest.config.digest))
        with pytest.raises(InvalidArchive) as caught:
            await fetcher.obtain(LayersNeed(repository, whole, (0, 1)))
    place = f"layer 2 of 2 (sha256:{broken.digest.hex[:12]}) of {repository}@sha256:{image.digest.hex[:12]}: "
    assert str(caught.value).startswith(place)
