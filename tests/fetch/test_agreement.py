"""A blob whose archive and whose TOC tell of two layers: shown no more once it is whole, and never again."""

import base64
import logging
from pathlib import Path
from typing import Any

import pytest
import trio

from layerfs.errors import InvalidToc
from layerfs.extract.client import ExtractorPool
from layerfs.fetch import agreement, completing
from layerfs.needs import FileNeed, LayersNeed, TocNeed
from layerfs.oci import Digest
from layerfs.store import ImageStorage, likeness
from tests.fetch.test_lazy import Scene
from tests.support import images
from tests.support.faulty_registry import FaultyRegistry
from tests.support.tocs import estargz

ARCHIVE = images.tar(
    [
        images.directory("etc/", 0o750, uid=3),
        images.file("etc/a", b"content", 0o644, xattrs={"user.note": b"x"}),
        images.file("etc/b", b"CONTENT", 0o644),
        images.hardlink("etc/c", "etc/a"),
        images.symlink("etc/link", "a"),
        images.chardev("dev", 1, 3),
        images.fifo("pipe"),
        images.whiteout("etc/gone"),
        images.opaque("etc"),
    ]
)
OTHER = str(Digest.of(b"CONTENT"))

Change = dict[str, dict[str, Any] | None]
TWO_TELLINGS: dict[str, tuple[Change, str]] = {
    "mode of a file": ({"etc/a": {"mode": 0o4755}}, "etc/a: mode 0644 (expected 4755)"),
    "mode of a directory": ({"etc/": {"mode": 0o777}}, "etc: mode 0750 (expected 0777)"),
    "owner": ({"etc/b": {"uid": 1000}}, "etc/b: owner 0:0 (expected 1000:0)"),
    "group": ({"etc/b": {"gid": 5}}, "etc/b: owner 0:0 (expected 0:5)"),
    "time": ({"etc/b": {"modtime": "2001-01-01T00:00:00Z"}}, "etc/b: mtime"),
    "attribute": (
        {"etc/a": {"xattrs": {"user.note": base64.b64encode(b"y").decode()}}},
        "etc/a: other extended attributes than in the TOC: user.note",
    ),
    "attribute more": (
        {"etc/b": {"xattrs": {"user.more": base64.b64encode(b"y").decode()}}},
        "etc/b: other extended attributes",
    ),
    "target of a link": ({"etc/link": {"linkName": "b"}}, "etc/link: leads elsewhere than in the TOC"),
    "target of a hard link": ({"etc/c": {"linkName": "etc/b"}}, "hard link"),
    "device": ({"dev": {"devMinor": 5}}, "dev: device 1:3 (expected 1:5)"),
    "type": ({"pipe": {"type": "dir"}}, "pipe: a pipe (expected a directory)"),
    "content": (
        {"etc/a": {"digest": OTHER, "chunkDigest": OTHER}},
        "etc/a: other bytes than in the TOC",
    ),
    "file in the archive alone": ({"etc/b": None}, "etc/b: not in the TOC"),
    "marker in the archive alone": ({"etc/.wh.gone": None}, "whiteouts differ"),
    "opaque marker in the archive alone": ({"etc/.wh..wh..opq": None}, "opaques differ"),
    "implied directory": ({"etc/": None}, "etc: implied differ"),
}


@pytest.fixture
def scene(faulty: FaultyRegistry, pool: ExtractorPool, tmp_path: Path) -> Scene:
    return Scene(faulty, pool, tmp_path / "store")


@pytest.mark.parametrize("what", TWO_TELLINGS)
@pytest.mark.allow_warnings
async def test_two_tellings_of_one_layer_are_found_out(
    scene: Scene, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    changes, told = TWO_TELLINGS[what]
    layer = estargz(ARCHIVE, changes=changes)
    async with scene.fetching() as fetcher:
        repository, image = await scene.image(fetcher, layer)
        await fetcher.obtain(TocNeed(repository, image, (0,)))
        assert scene.storage.lazy.open_skeleton(layer.place.digest) is not None
        with pytest.raises(InvalidToc, match="two layers") as caught:
            await fetcher.obtain(LayersNeed(repository, image, (0,)))
        assert told in str(caught.value)
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert told in record.getMessage()
    async with scene.fetching() as later:
        file = FileNeed(repository, image, 0, layer.place.digest, Digest.of(b"content").object_id)
        for need in (TocNeed(repository, image, (0,)), LayersNeed(repository, image, (0,)), file):
            with pytest.raises(InvalidToc, match="two layers"):
                await later.obtain(need)


async def test_one_telling_is_found_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = estargz(ARCHIVE, chunk=3)
    compared: list[Digest] = []
    differences = likeness.differences

    def counted(storage: ImageStorage, toc: Digest, blob: Digest) -> tuple[str, ...]:
        compared.append(blob)
        return differences(storage, toc, blob)

    monkeypatch.setattr(agreement, "differences", counted)
    async with scene.fetching() as fetcher:
        repository, image = await scene.image(fetcher, layer)
        await fetcher.obtain(TocNeed(repository, image, (0,)))
        for _ in range(2):
            await fetcher.obtain(LayersNeed(repository, image, (0,)))
    async with scene.fetching() as later:
        await later.obtain(LayersNeed(repository, image, (0,)))
    assert len(compared) == 1
    assert scene.storage.lazy.tocs.is_equal(layer.place.digest, layer.digest)


async def test_files_of_a_whole_layer_are_not_kept_twice(scene: Scene) -> None:
    """Except for one that a layer needs, too, which is not whole."""
    layer, other = estargz(ARCHIVE), estargz(images.tar([images.file("copy", b"CONTENT")]))
    ids = {bytes_: Digest.of(bytes_).object_id for bytes_ in (b"content", b"CONTENT")}
    objects = scene.storage.lazy.objects
    async with scene.fetching() as fetcher:
        repository, image = await scene.image(fetcher, layer, other)
        await fetcher.obtain(TocNeed(repository, image, (0, 1)))
        for id_ in ids.values():
            await fetcher.obtain(FileNeed(repository, image, 0, layer.place.digest, id_))
            assert objects.has(id_)
        await fetcher.obtain(LayersNeed(repository, image, (0,)))
        assert [objects.has(id_) for id_ in ids.values()] == [False, True]
        await fetcher.obtain(LayersNeed(repository, image, (1,)))
        assert not objects.has(ids[b"CONTENT"])


@pytest.mark.parametrize("when", ["idle", "always"])
async def test_what_somebody_looks_at_becomes_whole(
    scene: Scene, when: completing.When, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completing, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(completing, "_LOOK", 0.01)
    layer = estargz(ARCHIVE)
    async with scene.fetching() as fetcher:
        fetcher.complete_behind(when)
        repository, image = await scene.image(fetcher, layer)
        await fetcher.obtain(TocNeed(repository, image, (0,)))
        with trio.fail_after(60):
            while not scene.storage.lazy.tocs.is_equal(layer.place.digest, layer.digest):  # noqa: ASYNC110
                await trio.sleep(0.02)
    assert scene.storage.open_layer(layer.digest) is not None
