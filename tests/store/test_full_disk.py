"""A filesystem of 1 MiB: everything says StoreFull, leaves nothing, and works once there is room."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from layerfs.errors import StoreFull
from layerfs.oci import Digest, Repository
from layerfs.store import ImageStorage
from tests.store.helpers import blob_of, download, extraction_of, leftovers, publish
from tests.support import images

pytestmark = pytest.mark.needs_root

BIG, BIG_DIGEST = blob_of(os.urandom(1 << 19) * 4)
SMALL, SMALL_DIGEST = blob_of(b"small")
LAYER = images.layer(*(images.file(f"file{number}", bytes(1 << 18)) for number in range(10)))
IMAGE = images.image(LAYER)
REPOSITORY = Repository.parse("full")


def fill_up(disk: Path) -> Path:
    """Take all room that is left on *disk*, to the last inode-sized bit."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


def test_a_download_that_does_not_fit_is_removed(small_disk: Path) -> None:
    storage = ImageStorage(small_disk / "store")

    def receive() -> None:
        with storage.stage_layer_download(BIG_DIGEST, len(BIG)) as staged:
            for start in range(0, len(BIG), 1 << 16):
                staged.write(BIG[start : start + (1 << 16)])
            staged.commit()

    with pytest.raises(StoreFull, match="No space left"):
        receive()
    assert leftovers(storage.images_dir) == []
    assert download(storage, SMALL).size == len(SMALL)


def test_an_extraction_that_does_not_fit_is_removed(small_disk: Path) -> None:
    with ImageStorage(small_disk / "store") as storage:
        blob = download(storage, LAYER.blob)
        with pytest.raises(StoreFull):
            storage.extract_layer(LAYER.digest, blob.path)
        assert leftovers(storage.images_dir) == []
        assert os.listdir(storage.images_dir / "extracted") == []


def _publish(storage: ImageStorage) -> None:
    blob = storage.open_blob(SMALL_DIGEST)
    assert blob is not None
    with storage.stage_tree(SMALL_DIGEST) as tree:
        storage.publish(tree, blob, extraction_of(SMALL))


OPERATIONS: list[tuple[str, Callable[[ImageStorage], object]]] = [
    ("download", lambda storage: download(storage, b"another blob")),
    ("manifest", lambda storage: storage.save_manifest(IMAGE.manifest, IMAGE.digest)),
    ("config", lambda storage: storage.save_config(IMAGE.config, IMAGE.config_digest)),
    ("ref", lambda storage: storage.refs.write(REPOSITORY.with_tag("1"), SMALL_DIGEST)),
    ("publication", _publish),
    ("cover", lambda storage: storage.publish_cover([Digest.of(b"pending")])),
    ("durability", lambda storage: storage.make_durable()),
]


@pytest.mark.parametrize(
    "operation", [operation for _, operation in OPERATIONS], ids=[name for name, _ in OPERATIONS]
)
def test_whatever_is_written_waits_for_room(
    small_disk: Path, operation: Callable[[ImageStorage], object]
) -> None:
    storage = ImageStorage(small_disk / "store")
    download(storage, SMALL)
    publish(storage, b"pending")
    ballast = fill_up(small_disk)
    before = sorted(os.walk(storage.images_dir))
    with pytest.raises(StoreFull, match="No space left"):
        operation(storage)
    assert sorted(os.walk(storage.images_dir)) == before
    ballast.unlink()
    operation(storage)
    assert leftovers(storage.images_dir) == []


def test_a_full_store_can_be_opened_and_read_and_emptied(small_disk: Path) -> None:
    first = ImageStorage(small_disk / "store")
    publish(first, SMALL)
    first.refs.write(REPOSITORY.with_tag("1"), SMALL_DIGEST)
    fill_up(small_disk)
    storage = ImageStorage(small_disk / "store")
    layer = storage.open_layer(SMALL_DIGEST)
    assert layer is not None
    assert (layer.path / "content").read_bytes() == SMALL
    assert [str(reference) for reference, _ in storage.refs.all()] == ["docker.io/library/full:1"]
    with storage.lock(SMALL_DIGEST):
        assert storage.remove_layer(SMALL_DIGEST)
    assert storage.sweep().trees == 1
    assert not storage.has_layer(SMALL_DIGEST)


def test_a_new_store_on_a_full_disk_says_so(small_disk: Path) -> None:
    fill_up(small_disk)
    for number in range(1000):  # tmpfs keeps a few inodes without pages
        try:
            (small_disk / f"more{number}").mkdir()
        except OSError:
            break
    with pytest.raises(StoreFull):
        ImageStorage(small_disk / "store")


def test_the_digest_of_nothing_needs_no_room(small_disk: Path) -> None:
    storage = ImageStorage(small_disk / "store")
    assert storage.open_layer(Digest.of(b"")) is None
