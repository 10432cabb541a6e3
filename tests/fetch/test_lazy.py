"""Lazy layers: what is asked of a registry for a listing and for a file, and what becomes of them."""

import json
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from layerfs.errors import (
    DigestMismatch,
    LayerfsError,
    NotFound,
    NotInStore,
    RegistryMisbehaved,
    StoreFull,
    Unreachable,
)
from layerfs.extract.client import ExtractorPool
from layerfs.extract.job import UnpackJob
from layerfs.fetch.decoding import Decoders
from layerfs.fetch.fetcher import Fetcher
from layerfs.fetch.laziness import LAZY, Laziness
from layerfs.fetch.opening import open_fetcher
from layerfs.fetch.origin import InProcess
from layerfs.fetch.parts import read_span
from layerfs.fetch.spans import Span
from layerfs.layer.budgets import Budgets
from layerfs.layer.toc import Content
from layerfs.needs import DocumentNeed, FileNeed, LayersNeed, TocNeed, WayNeed
from layerfs.oci import Digest, Image, Platform, Repository
from layerfs.oci.toc import toc_place
from layerfs.registry import RegistrySettings
from layerfs.registry.client import RegistryClient
from layerfs.registry.mirrors import places
from layerfs.store import ImageStorage
from layerfs.store.parts import Part
from tests.support import images
from tests.support.faulty_registry import FaultyRegistry, error_answer
from tests.support.registry_client import quick
from tests.support.tocs import LazyLayer, estargz

PLATFORM = Platform("linux", "amd64")
_NOISE = random.Random(22)
BIG = _NOISE.randbytes(5_000_000)
SMALL = _NOISE.randbytes(3000)
ARCHIVE = images.tar(
    [
        images.directory("etc/"),
        images.file("etc/before", _NOISE.randbytes(200_000)),
        images.file("etc/small", SMALL),
        images.file("etc/empty"),
        images.file("srv/big", BIG),
        images.file("srv/after", _NOISE.randbytes(200_000)),
        images.whiteout("etc/gone"),
    ]
)
LAYER = estargz(ARCHIVE, chunk=1 << 20)
MANY = estargz(
    images.tar([images.file(f"many/{number:03}", _NOISE.randbytes(9000)) for number in range(300)])
)


class _NoToc(LazyLayer):
    """A layer that nothing says has a TOC."""

    @property
    def annotations(self) -> dict[str, str]:
        return {}


def lazy_image(*layers: LazyLayer) -> images.BuiltImage:
    """Return an image of *layers*, whose manifest says that they have TOCs."""
    built = images.image(*(images.layer(archive=layer.archive) for layer in layers), platform=PLATFORM)
    manifest = json.loads(built.manifest)
    manifest["layers"] = [
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": str(layer.digest),
            "size": len(layer.blob),
            "annotations": layer.annotations,
        }
        for layer in layers
    ]
    raw = tuple(
        replace(one, blob=layer.blob, digest=layer.digest)
        for one, layer in zip(built.layers, layers, strict=True)
    )
    return replace(built, layers=raw, manifest=images.to_json(manifest))


@dataclass
class Scene:
    """A registry with lazy images, and a store."""

    faulty: FaultyRegistry
    pool: ExtractorPool
    path: Path
    laziness: Laziness = LAZY
    settings: RegistrySettings = field(default_factory=quick)

    @property
    def storage(self) -> ImageStorage:
        return ImageStorage(self.path)

    @asynccontextmanager
    async def fetching(self) -> AsyncIterator[Fetcher]:
        async with (
            RegistryClient(self.settings) as client,
            open_fetcher(
                self.storage,
                InProcess(client),
                self.pool,
                platform=PLATFORM,
                budgets=Budgets(),
                workers=2,
                laziness=self.laziness,
            ) as fetcher,
        ):
            yield fetcher

    async def image(
        self, fetcher: Fetcher, *layers: LazyLayer, path: str = "a/b"
    ) -> tuple[Repository, Image]:
        built = lazy_image(*(layers or (LAYER,)))
        repository = self.faulty.push(path, "1", built)
        manifest = await fetcher.image(repository, built.digest)
        return repository, Image.of(manifest, self.storage.load_config(manifest.config.digest))

    def asked(self) -> list[str]:
        """Return the ranges that were asked for of blobs that are layers; empty for a whole one."""
        layers = {f"sha256:{layer}" for layer in (LAYER.digest.hex,)}
        return [
            one.headers.get("range", "").removeprefix("bytes=")
            for one in self.faulty.asked
            if one.method == "GET" and one.path.rpartition("/")[2] in layers
        ]

    def asked_of(self, layer: LazyLayer) -> int:
        """Return how many times bytes of *layer* were asked for."""
        return sum(one.method == "GET" and one.path.endswith(str(layer.digest)) for one in self.faulty.asked)

    def here(self) -> tuple[bool, bool]:
        """Say whether the store has the skeleton, and the layer."""
        storage = self.storage
        return (
            storage.lazy.open_skeleton(LAYER.place.digest) is not None,
            storage.open_layer(LAYER.digest) is not None,
        )


@pytest.fixture
def scene(faulty: FaultyRegistry, pool: ExtractorPool, tmp_path: Path) -> Scene:
    return Scene(faulty, pool, tmp_path / "store")


def content_of(scene: Scene, size: int) -> Content:
    """Return the content of the one file of LAYER that has *size* bytes."""
    contents = dict(scene.storage.lazy.contents(LAYER.place.digest))
    (found,) = (content for content in contents.values() if content.size == size)
    return found


async def listed(fetcher: Fetcher, scene: Scene, *layers: LazyLayer) -> tuple[Repository, Image]:
    repository, image = await scene.image(fetcher, *layers)
    await fetcher.obtain(TocNeed(repository, image, tuple(range(len(image.layers)))))
    return repository, image


def need(repository: Repository, image: Image, content: Content) -> FileNeed:
    return FileNeed(repository, image, 0, LAYER.place.digest, content.id)


@pytest.mark.parametrize("spoiled", ["before its TOC came", "before a file came"])
async def test_what_a_mirror_gives_wrong_of_a_lazy_layer_comes_from_the_registry(
    scene: Scene, tmp_path: Path, spoiled: str
) -> None:
    (tmp_path / "certs.d" / scene.faulty.host).mkdir(parents=True)
    with FaultyRegistry() as mirror:
        (tmp_path / "certs.d" / scene.faulty.host / "hosts.toml").write_text(f'[host."http://{mirror.host}"]')
        scene.settings = quick(mirrors=places.load({}, Path("/dev/null"), tmp_path / "certs.d"))
        mirror.push("a/b", "1", lazy_image(LAYER))
        async with scene.fetching() as fetcher:
            if spoiled == "before its TOC came":
                mirror.spoil_blob(LAYER.digest, bytes(len(LAYER.blob)))
            repository, image = await listed(fetcher, scene)
            mirror.spoil_blob(LAYER.digest, bytes(len(LAYER.blob)))
            wanted = need(repository, image, content_of(scene, len(BIG)))
            await fetcher.obtain(wanted)
    assert scene.here() == (True, False)
    assert scene.storage.lazy.objects.has(wanted.id)
    assert all(scene.asked())  # ranges alone
    assert len(scene.asked()) == (2 if spoiled == "before its TOC came" else 1)


@pytest.mark.parametrize(
    ("laziness", "daemon", "layer", "started"),
    [
        pytest.param(LAZY, True, LAYER, 1, id="a mount"),
        pytest.param(LAZY, False, LAYER, 0, id="a pull"),
        pytest.param(LAZY, True, _NoToc(LAYER.blob, LAYER.archive, LAYER.place), 0, id="no TOC"),
        pytest.param(Laziness(on=False), True, LAYER, 0, id="switched off"),
    ],
)
async def test_an_extractor_starts_while_the_config_of_a_lazy_image_comes(
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    laziness: Laziness,
    daemon: bool,
    layer: LazyLayer,
    started: int,
) -> None:
    scene.laziness = laziness
    when = []

    async def warm(_: Decoders) -> None:
        when.append([one for one in scene.faulty.asked if "/blobs/" in one.path])

    monkeypatch.setattr(Decoders, "warm", warm)
    async with scene.fetching() as fetcher:
        if daemon:
            fetcher.complete_behind("never")
        await scene.image(fetcher, layer)
    assert when == [[]] * started


@pytest.mark.parametrize("way", [True, False], ids=["on the way to its layers", "a look at the image"])
async def test_what_lists_files_comes_beside_the_config_for_who_looks_into_layers(
    scene: Scene, way: bool
) -> None:
    built = lazy_image(LAYER)
    repository = scene.faulty.push("a/b", "1", built)
    scene.faulty.faults.first = [(str(built.config_digest), error_answer(404, "BLOB_UNKNOWN", "not yet"))]
    need_of = WayNeed if way else DocumentNeed
    async with scene.fetching() as fetcher:
        fetcher.complete_behind("never")
        with pytest.raises(NotFound):
            await fetcher.obtain(need_of(repository, built.digest))
        while way and not scene.asked():  # noqa: ASYNC110 - what a registry is asked is no event here
            await trio.sleep(0.01)
        assert len(scene.asked()) == way
        await fetcher.obtain(need_of(repository, built.digest))
        manifest = await fetcher.image(repository, built.digest)
        image = Image.of(manifest, scene.storage.load_config(manifest.config.digest))
        await fetcher.obtain(TocNeed(repository, image, (0,)))
        await fetcher.obtain(need_of(repository, built.digest))
    assert len(scene.asked()) == 1
    assert scene.here() == (True, False)


async def test_a_listing_costs_the_end_of_the_blob(scene: Scene) -> None:
    async with scene.fetching() as fetcher:
        await listed(fetcher, scene)
        await listed(fetcher, scene)
    size = len(LAYER.blob)
    assert scene.asked() == [f"{size - (64 << 10)}-{size - 1}"]
    assert scene.here() == (True, False)
    assert (scene.path / "skeletons" / LAYER.place.digest.name / "etc/small").stat().st_size == 3000


@pytest.mark.parametrize("content", [SMALL, BIG], ids=["small", "big"])
async def test_many_readers_of_a_file_cost_one_request(scene: Scene, content: bytes) -> None:
    async with scene.fetching() as fetcher:
        repository, image = await listed(fetcher, scene)
        wanted = need(repository, image, content_of(scene, len(content)))
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(fetcher.obtain, wanted)
        await fetcher.obtain(wanted)
        assert fetcher.waiting == 0
    assert len(scene.asked()) == 2
    start, _, end = scene.asked()[1].partition("-")
    assert int(end) - int(start) < len(content) + 100_000
    found = scene.storage.lazy.objects.find(wanted.id)
    assert found is not None
    assert found.path.read_bytes() == content
    assert scene.here() == (True, False)


async def test_an_equal_file_of_another_layer_costs_nothing(scene: Scene) -> None:
    other = estargz(images.tar([images.file("copy", SMALL, mode=0o4755)]))
    async with scene.fetching() as fetcher:
        repository, image = await listed(fetcher, scene, LAYER, other)
        small = content_of(scene, len(SMALL))
        await fetcher.obtain(need(repository, image, small))
        asked = len(scene.faulty.asked)
        await fetcher.obtain(FileNeed(repository, image, 1, other.place.digest, small.id))
        assert len(scene.faulty.asked) == asked


async def test_wrong_bytes_are_told_and_asked_for_again(scene: Scene) -> None:
    async with scene.fetching() as fetcher:
        repository, image = await listed(fetcher, scene)
        content = content_of(scene, len(SMALL))
        wanted = need(repository, image, content)
        middle = content.pieces[0].offset + len(SMALL) // 2
        scene.faulty.spoil_blob(LAYER.digest, images.flip_byte(LAYER.blob, middle))
        for _ in range(2):
            with pytest.raises(LayerfsError) as caught:
                await fetcher.obtain(wanted)
            assert not isinstance(caught.value, Unreachable)
        assert fetcher.journal.failures
        scene.faulty.spoil_blob(LAYER.digest, LAYER.blob)
        await fetcher.obtain(wanted)
    assert scene.storage.lazy.objects.find(wanted.id) is not None


@pytest.mark.allow_warnings
async def test_a_toc_that_hashes_to_something_else_has_the_layer_fetched_whole(scene: Scene) -> None:
    lies = replace(LAYER, place=msgspec.structs.replace(LAYER.place, digest=images.layer().digest))
    async with scene.fetching() as fetcher:
        repository, image = await listed(fetcher, scene, lies)
        assert scene.here() == (False, True)
        await fetcher.obtain(TocNeed(repository, image, (0,)))
    assert scene.storage.lazy.open_skeleton(lies.place.digest) is None
    assert scene.asked().count("") == 1


@pytest.mark.parametrize("status", [200, 501])
async def test_a_registry_without_ranges_gives_whole_layers(scene: Scene, status: int) -> None:
    scene.faulty.faults.ignore_range = status == 200
    scene.faulty.faults.refuse_range, scene.faulty.faults.range_status = status != 200, status
    async with scene.fetching() as fetcher:
        repository, image = await listed(fetcher, scene)
        assert fetcher.why_whole(repository, image.layers[0]).endswith("answers no ranges")
    assert scene.here() == (False, True)


async def test_a_registry_that_denies_ranges_may_give_the_whole_and_is_asked_again(scene: Scene) -> None:
    faults = scene.faulty.faults
    async with scene.fetching() as fetcher:
        repository, image = await scene.image(fetcher, MANY)
        faults.refuse_range, faults.range_status = True, 403
        await fetcher.obtain(TocNeed(repository, image, (0,)))
        assert scene.storage.open_layer(MANY.digest) is not None
        faults.refuse_range = False
        await listed(fetcher, scene)
    assert scene.here() == (True, False), "another layer, a moment later"


@pytest.mark.parametrize(("status", "error"), [(416, RegistryMisbehaved), (503, Unreachable)])
async def test_a_registry_that_fails_with_a_range_is_asked_again(
    scene: Scene, status: int, error: type[LayerfsError]
) -> None:
    faults = scene.faulty.faults
    async with scene.fetching() as fetcher:
        repository, image = await scene.image(fetcher)
        faults.refuse_range, faults.range_status = True, status
        with pytest.raises(error):
            await fetcher.obtain(TocNeed(repository, image, (0,)))
        assert not fetcher.why_whole(repository, image.layers[0])
        faults.refuse_range = False
        await fetcher.obtain(TocNeed(repository, image, (0,)))
        assert scene.here() == (True, False)


async def test_ranges_that_end_between_listing_and_file(scene: Scene) -> None:
    async with scene.fetching() as fetcher:
        repository, image = await listed(fetcher, scene)
        wanted = need(repository, image, content_of(scene, len(BIG)))
        scene.faulty.faults.ignore_range = True
        await fetcher.obtain(wanted)
        assert scene.here() == (True, True) or scene.storage.lazy.objects.find(wanted.id)


@pytest.mark.parametrize(
    "laziness", [Laziness(on=False), Laziness(whole=("127.0.0.1:*/a/*",))], ids=["off", "whole"]
)
async def test_switched_off(scene: Scene, laziness: Laziness) -> None:
    scene.laziness = laziness
    async with scene.fetching() as fetcher:
        await listed(fetcher, scene)
    assert scene.here() == (False, True)


async def test_what_came_for_a_file_is_not_asked_for_again(scene: Scene) -> None:
    async with scene.fetching() as fetcher:
        repository, image = await listed(fetcher, scene)
        await fetcher.obtain(need(repository, image, content_of(scene, len(BIG))))
        before = scene.asked()
        await fetcher.obtain(LayersNeed(repository, image, (0,)))
        rest = scene.asked()[len(before) :]
    assert scene.here() == (True, True)
    spans = [tuple(map(int, one.split("-"))) for one in rest]
    assert sum(end - start for start, end in spans) < len(LAYER.blob) - len(BIG) + 1000, rest
    assert not list((scene.path / "layers").glob("*.part")), "the blob is here: its parts are of no use"


async def test_a_part_that_lies_costs_one_more_download(scene: Scene) -> None:
    async with scene.fetching() as fetcher:
        repository, image = await listed(fetcher, scene)
        await fetcher.obtain(need(repository, image, content_of(scene, len(BIG))))
        for path in (scene.path / "layers").glob("*.part"):
            os.truncate(path, path.stat().st_size - 5)
            os.truncate(path, path.stat().st_size + 5)
        await fetcher.obtain(LayersNeed(repository, image, (0,)))
    assert scene.here() == (True, True)


async def test_who_reads_on_has_the_next_files_before_he_asks(scene: Scene) -> None:
    async with scene.fetching() as fetcher:
        repository, image = await listed(fetcher, scene, MANY)
        toc = MANY.place.digest
        lazy = scene.storage.lazy
        contents = sorted((one for _, one in lazy.contents(toc)), key=lambda one: one.pieces[0].offset)
        for content in contents[:2]:
            await fetcher.obtain(FileNeed(repository, image, 0, toc, content.id))
        here = [lazy.objects.find(one.id) is not None for one in contents]
        assert sum(here) > 50
        assert here == sorted(here, reverse=True), "those that follow"
        needs = 2
        for content in contents:
            if lazy.objects.find(content.id) is None:
                await fetcher.obtain(FileNeed(repository, image, 0, toc, content.id))
                needs += 1
        assert needs < 6
        assert scene.asked_of(MANY) == needs + 1
        sizes = [found.size for one in contents if (found := lazy.objects.find(one.id))]
        assert sizes == [one.size for one in contents]


async def test_what_a_container_lacks_is_made_in_the_order_of_the_blob(scene: Scene) -> None:
    """So that each range and each job has many of them."""
    async with scene.fetching() as fetcher:
        repository, image = await listed(fetcher, scene, MANY)
        toc = MANY.place.digest
        lazy = scene.storage.lazy
        contents = sorted((one for _, one in lazy.contents(toc)), key=lambda one: one.pieces[0].offset)
        await fetcher.obtain(FileNeed(repository, image, 0, toc, contents[7].id))
        lacking = fetcher._lazy._objects.lacking(toc)
        assert lacking == [one.id for one in contents if one != contents[7]]


async def test_who_picks_files_has_those_alone(scene: Scene) -> None:
    async with scene.fetching() as fetcher:
        repository, image = await listed(fetcher, scene, MANY)
        toc = MANY.place.digest
        lazy = scene.storage.lazy
        contents = sorted((one for _, one in lazy.contents(toc)), key=lambda one: one.pieces[0].offset)
        for content in (contents[200], contents[100], contents[30]):
            await fetcher.obtain(FileNeed(repository, image, 0, toc, content.id))
        assert sum(lazy.objects.find(one.id) is not None for one in contents) == 3


@pytest.mark.parametrize("is_sure", [True, False])
async def test_an_object_comes_from_another_image_if_the_first_fails(scene: Scene, *, is_sure: bool) -> None:
    async with scene.fetching() as fetcher:
        repository, image = await listed(fetcher, scene)
        first = need(repository, image, content_of(scene, len(SMALL)))
        nowhere = Repository("127.0.0.1:1", "a/b")
        wrong = msgspec.structs.replace(first, toc=Digest.of(b"another"), is_sure=False)
        lost = msgspec.structs.replace(first, repository=nowhere)
        with pytest.raises(Unreachable):
            await fetcher.obtain(lost)
        last = msgspec.structs.replace(first, is_sure=is_sure)
        await fetcher.obtain(msgspec.structs.replace(lost, others=(wrong, last)))
        assert scene.storage.lazy.objects.find(first.id) is not None
        unnamed = msgspec.structs.replace(first, id=Digest.of(b"nothing").object_id, is_sure=False)
        await fetcher.obtain(unnamed)  # who asks again finds that nobody names it
        with pytest.raises(NotInStore, match="no file of the TOC"):
            await fetcher.obtain(msgspec.structs.replace(unnamed, is_sure=True))


async def test_a_full_disk_has_a_collection_and_another_try(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full for whoever begins to write, until something was collected."""
    room = [True]
    storage = ImageStorage(scene.path)

    def full_at_times(begin: Callable[..., Any]) -> Callable[..., Any]:
        def full(*arguments: Any) -> Any:
            if not room.pop():
                raise StoreFull("no space left on device")
            return begin(*arguments)

        return full

    monkeypatch.setattr(storage.lazy, "stage_skeleton", full_at_times(storage.lazy.stage_skeleton))
    monkeypatch.setattr(storage.lazy.objects, "stage", full_at_times(storage.lazy.objects.stage))

    def make_room(_since: float) -> bool:
        room.append(True)
        return True

    async with (
        RegistryClient(quick()) as client,
        open_fetcher(
            storage,
            InProcess(client),
            scene.pool,
            platform=PLATFORM,
            budgets=Budgets(),
            workers=2,
            make_room=make_room,
        ) as fetcher,
    ):
        repository, image = await scene.image(fetcher)
        room[:] = [False]
        await fetcher.obtain(TocNeed(repository, image, (0,)))
        assert scene.here() == (True, False)
        room[:] = [False]
        small = need(repository, image, content_of(scene, len(SMALL)))
        await fetcher.obtain(small)
        assert storage.lazy.objects.find(small.id) is not None


async def test_a_part_that_goes_between_look_and_use_is_asked_for_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene.fetching() as fetcher:
        repository, image = await listed(fetcher, scene)
        small = need(repository, image, content_of(scene, len(SMALL)))
        stage = Decoders.unpack
        lost: list[Path] = []

        async def unpack(self: Decoders, job: UnpackJob, begin: Any) -> None:
            if not lost:
                lost.extend(Path(part.path) for part in job.held)
                for path in lost:
                    path.unlink()
            await stage(self, job, begin)

        monkeypatch.setattr(Decoders, "unpack", unpack)
        await fetcher.obtain(small)
        assert lost
        assert scene.storage.lazy.objects.find(small.id) is not None
        assert len(scene.asked()) == 3


async def test_the_end_of_a_blob_that_goes_before_its_toc_was_read_is_asked_for_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:

    lost: list[Path] = []

    def losing(parts: list[Part], span: Span) -> bytes:
        if not lost:
            lost.extend(part.path for part in parts)
            for path in lost:
                path.unlink()
        return read_span(parts, span)

    monkeypatch.setattr("layerfs.fetch.tocbytes.read_span", losing)
    async with scene.fetching() as fetcher:
        await listed(fetcher, scene)
    assert lost
    assert scene.here() == (True, False)
    assert len(scene.asked()) == 2


def test_the_layer_is_what_the_tests_take_it_for() -> None:
    descriptor = images.layer().descriptor()
    found = toc_place(msgspec.structs.replace(descriptor, annotations=LAYER.annotations))
    assert found is not None
    assert found.digest == LAYER.place.digest
    assert issubclass(DigestMismatch, LayerfsError)
