"""Images that skopeo, podman and ctr-remote wrote: listed, read file by file, made whole, compared."""

import logging
from pathlib import Path

import pytest

from layerfs.errors import InvalidArchive, InvalidToc
from layerfs.extract.client import ExtractorPool
from layerfs.fetch.fetcher import Fetcher
from layerfs.needs import FileNeed, LayersNeed, TocNeed
from layerfs.oci import Digest, Image, Repository
from layerfs.store.tocs import BlobPlace
from tests.fetch.test_lazy import Scene
from tests.support import lazy_images
from tests.support.faulty_registry import FaultyRegistry
from tests.support.images import BuiltImage
from tests.support.lazy_layers import place_of, retold

pytestmark = pytest.mark.needs_root


@pytest.fixture
def scene(faulty: FaultyRegistry, pool: ExtractorPool, tmp_path: Path) -> Scene:
    return Scene(faulty, pool, tmp_path / "store")


async def fetched(scene: Scene, fetcher: Fetcher, image: str | BuiltImage) -> tuple[Repository, Image]:
    """Return an image, or that of one kind, its documents being here."""
    built = lazy_images.load(image) if isinstance(image, str) else image
    repository = scene.faulty.push("lazy", "latest", built)
    manifest = await fetcher.image(repository, built.digest)
    return repository, Image.of(manifest, scene.storage.load_config(manifest.config.digest))


@pytest.mark.parametrize("kind", lazy_images.LAZY)
async def test_each_file_can_be_read_alone_and_the_whole_is_what_was_listed(scene: Scene, kind: str) -> None:
    built = lazy_images.load(kind)
    lazy = scene.storage.lazy
    async with scene.fetching() as fetcher:
        repository, image = await fetched(scene, fetcher, kind)
        await fetcher.obtain(TocNeed(repository, image, (0, 1)))
        for number in (0, 1):
            toc = place_of(built, number).digest
            stored = lazy.tocs.find(toc)
            assert stored is not None
            assert stored.place() == BlobPlace(
                place_of(built, number), str(built.layers[number].digest), built.layers[number].size
            )
            assert scene.storage.open_layer(built.layers[number].digest) is None
            for id_, content in list(lazy.contents(toc)):
                await fetcher.obtain(FileNeed(repository, image, number, toc, id_))
                found = lazy.objects.find(id_)
                assert found is not None
                assert str(Digest.of(found.path.read_bytes())) == content.digest

        await fetcher.obtain(LayersNeed(repository, image, (0, 1)))

    for number in (0, 1):
        assert lazy.tocs.is_equal(place_of(built, number).digest, built.layers[number].digest)


@pytest.mark.allow_warnings
async def test_an_attribute_that_the_toc_has_lost_shows_when_the_layer_is_whole(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene.fetching() as fetcher:
        repository, image = await fetched(scene, fetcher, lazy_images.EMPTY_XATTR)
        await fetcher.obtain(TocNeed(repository, image, (0,)))
        with pytest.raises(InvalidToc, match=r"two layers: file: .*user\.empty"):
            await fetcher.obtain(LayersNeed(repository, image, (0,)))
    assert [one.levelno for one in caplog.records if one.levelno > logging.WARNING] == [logging.ERROR]


@pytest.mark.allow_warnings
@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(b"2023-11-14T22:13:20.75Z", b"2023-11-14T22:13:20.76Z", id="a fraction of a second"),
        pytest.param(b'"mode":2541', b'"mode":493', id="a mode"),
    ],
)
async def test_zstd_chunked_is_compared_exactly(scene: Scene, one: bytes, other: bytes) -> None:
    built = retold(lazy_images.load("debian12-skopeo"), lambda toc: toc.replace(one, other))
    assert built.layers[0].digest != lazy_images.load("debian12-skopeo").layers[0].digest
    async with scene.fetching() as fetcher:
        repository, image = await fetched(scene, fetcher, built)
        await fetcher.obtain(TocNeed(repository, image, (0,)))
        with pytest.raises(InvalidToc, match="two layers"):
            await fetcher.obtain(LayersNeed(repository, image, (0,)))


@pytest.mark.allow_warnings
async def test_a_broken_archive_shows_when_the_layer_is_whole(scene: Scene) -> None:
    async with scene.fetching() as fetcher:
        repository, image = await fetched(scene, fetcher, lazy_images.SPARSE_OLD)
        await fetcher.obtain(TocNeed(repository, image, (0,)))
        with pytest.raises(InvalidArchive, match="sparse map"):
            await fetcher.obtain(LayersNeed(repository, image, (0,)))


@pytest.mark.allow_warnings
@pytest.mark.parametrize("kind", [lazy_images.EXTERNAL, lazy_images.LATIN])
async def test_what_cannot_be_lazy_is_whole(scene: Scene, kind: str) -> None:
    built = lazy_images.load(kind)
    async with scene.fetching() as fetcher:
        repository, image = await fetched(scene, fetcher, kind)
        await fetcher.obtain(TocNeed(repository, image, (0,)))
    assert scene.storage.open_layer(built.layers[0].digest) is not None
