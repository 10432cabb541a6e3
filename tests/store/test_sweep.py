import os
import time
from pathlib import Path

import pytest

from layerfs.oci import Digest, Repository
from layerfs.store import ImageStorage
from tests.store.helpers import blob_of, child, download, leftovers, publish

CONTENT, DIGEST = blob_of(b"the bytes")
WEEK = 7 * 24 * 3600


def suspend(storage: ImageStorage, age: float) -> Path:
    with storage.stage_layer_download(DIGEST, -1) as staged:
        staged.write(CONTENT[:3])
    when = time.time() - age
    os.utime(staged.staged_path, (when, when))
    return staged.staged_path


def test_suspended_downloads_are_swept_after_a_week(storage: ImageStorage) -> None:
    young = suspend(storage, WEEK - 3600)
    assert storage.sweep().total == 0
    assert young.exists()
    os.utime(young, (0, 0))
    assert storage.sweep().downloads == 1
    assert leftovers(storage.images_dir) == []


def test_the_age_can_be_given(storage: ImageStorage) -> None:
    suspend(storage, 10)
    assert storage.sweep(max_age=5).downloads == 1


def test_a_committed_download_that_kept_its_staged_name_is_swept_at_once(storage: ImageStorage) -> None:
    blob = download(storage, CONTENT)
    os.link(blob.path, storage.layer_dir / f"{DIGEST.name}.{'0' * 32}.downloading")
    assert storage.sweep().downloads == 1
    assert storage.verify_layer(DIGEST)


def test_nothing_held_or_complete_is_touched(storage: ImageStorage, store: Path) -> None:
    publish(storage, b"published")
    storage.refs.write(Repository.parse("a").with_tag("1"), DIGEST)
    with (
        storage.stage_layer_download(DIGEST, -1) as staged,
        storage.stage_tree(DIGEST) as tree,
        storage.lock(Digest.of(b"void")),
    ):
        staged.write(CONTENT)
        os.utime(staged.staged_path, (0, 0))
        (tree.path / "file").write_bytes(b"")
        storage.layer_extracted_path(Digest.of(b"void")).mkdir()
        before = sorted(os.walk(store))
        for sweeper in (storage, ImageStorage(store)):
            assert sweeper.sweep().total == 0
        assert sorted(os.walk(store)) == before
        staged.commit()
    assert storage.verify_layer(DIGEST)
    assert storage.sweep().void == 1


def test_what_a_killed_process_staged_is_swept(store: Path) -> None:
    storage = ImageStorage(store)
    kept: list[object] = []

    def stage_all() -> None:
        mine = ImageStorage(store)
        tree = mine.stage_tree(DIGEST)
        (tree.path / "a/b").mkdir(parents=True)
        download = mine.stage_layer_download(DIGEST, -1)
        download.write(CONTENT)
        config = mine.stage_config_download(DIGEST)
        config.write(CONTENT)
        kept.extend([mine, tree, download, config])

    with child(stage_all):
        assert storage.sweep(max_age=-10).total == 0
        assert len(leftovers(store)) == 3
    swept = storage.sweep(max_age=-10)
    assert (swept.trees, swept.downloads) == (1, 2)
    assert leftovers(store) == []


@pytest.mark.parametrize("directory", ["", "manifests", "configs", "layers", "extracted", "covers", "refs"])
def test_half_written_files_are_swept_wherever_they_are(storage: ImageStorage, directory: str) -> None:
    stem = "" if directory == "refs" else "name"
    (storage.images_dir / directory / f"{stem}.{'0' * 32}.writing").write_bytes(b"ha")
    assert storage.sweep().files == 1
    assert leftovers(storage.images_dir) == []


@pytest.mark.parametrize("kind", ["removing", "extracting", "writing", "downloading"])
def test_registry_named_like_staged(storage: ImageStorage, kind: str) -> None:
    tag = Repository.parse(f"x.{'0' * 32}.{kind}/image").with_tag("1")
    storage.refs.write(tag, DIGEST)

    assert storage.sweep().total == 0

    assert [known.tag for known, _ in storage.refs.all()] == [tag]


def test_names_that_are_not_ours_are_left_alone(storage: ImageStorage) -> None:
    for name in ("notes.txt", "layers/x.downloading", "extracted/mine", "extracted/x.json"):
        (storage.images_dir / name).write_bytes(b"")
    assert storage.sweep().total == 0
    assert (storage.images_dir / "extracted/mine").exists()


@pytest.mark.allow_warnings
def test_what_cannot_be_removed_does_not_keep_the_rest(storage: ImageStorage, store: Path) -> None:
    stubborn = store / f"manifests/a.{'0' * 32}.writing"
    (stubborn / "is a directory").mkdir(parents=True)
    (store / f"refs/.{'1' * 32}.writing").write_bytes(b"")
    assert storage.sweep().files == 1
    assert stubborn.exists()


def test_opening_a_store_does_not_sweep(storage: ImageStorage, store: Path) -> None:
    path = suspend(storage, 2 * WEEK)
    ImageStorage(store)
    assert path.exists()
