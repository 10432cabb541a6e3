"""Lazy layers in a store: TOCs and skeletons are complete or absent, and say where each object is."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from layerfs.errors import DigestMismatch, InvalidToc, NotInStore, StoreFull, StoreReadOnly
from layerfs.layer.overlayfs import object_of
from layerfs.oci import Digest
from layerfs.store import ImageStorage, LayerDir
from layerfs.store.copies import copy_entries
from tests.store.helpers import child, leftovers
from tests.support.images import directory, file, tar
from tests.support.mounts import ramfs, tmpfs
from tests.support.tocs import LazyLayer, estargz

pytestmark = pytest.mark.needs_root

LAYER = estargz(tar([directory("etc"), file("etc/a", b"content", uid=5), file("b", b"x" * 9000)]), chunk=4000)
TOC = LAYER.place.digest


def make(storage: ImageStorage, layer: LazyLayer = LAYER) -> LayerDir:
    """Make the skeleton of a layer whose TOC was fetched."""
    with storage.lazy.stage_toc(layer.place.digest) as staged:
        staged.write(layer.toc)
        return storage.lazy.make_skeleton(staged, layer.blob_place)


def test_a_skeleton_is_found_with_its_toc(storage: ImageStorage) -> None:
    assert storage.lazy.open_skeleton(TOC) is None

    made = make(storage)

    assert storage.lazy.open_skeleton(TOC) == made
    toc = storage.lazy.tocs.find(TOC)
    assert toc is not None
    assert (toc.toc.read_bytes(), toc.split) == (LAYER.toc, None)
    assert (made.path / "etc/a").stat().st_size == 7
    assert leftovers(storage.images_dir) == []
    assert storage.make_durable() == 1


def test_each_object_that_a_stub_leads_to_is_in_the_table(storage: ImageStorage) -> None:
    made = make(storage)

    id_ = object_of(os.getxattr(made.path / "b", "trusted.overlay.redirect"))
    assert id_ == Digest.of(b"x" * 9000).object_id
    content = storage.lazy.content(TOC, id_)
    assert [(piece.start, piece.size) for piece in content.pieces] == [(0, 4000), (4000, 4000), (8000, 1000)]
    found = dict(storage.lazy.contents(TOC))
    assert found[id_] == content
    assert list(storage.lazy.object_ids(TOC)) == sorted(found)
    with pytest.raises(NotInStore):
        storage.lazy.content(TOC, Digest.of(b"other").object_id)
    with pytest.raises(NotInStore):
        storage.lazy.content(Digest.of(b"other"), id_)


def test_a_skeleton_is_made_anew_from_the_toc_in_the_store(storage: ImageStorage) -> None:
    make(storage)
    assert storage.lazy.skeletons.discard(TOC)
    assert storage.lazy.open_skeleton(TOC) is None
    toc = storage.lazy.tocs.find(TOC)
    assert toc is not None

    made = storage.lazy.make_skeleton(toc, LAYER.blob_place)

    assert storage.lazy.open_skeleton(TOC) == made


def test_what_was_made_of_a_refused_toc_has_no_name(storage: ImageStorage) -> None:
    refused = estargz(LAYER.archive, changes={"b": {"name": "../b"}})
    with pytest.raises(InvalidToc):
        make(storage, refused)
    assert storage.lazy.tocs.find(refused.place.digest) is None
    assert storage.lazy.open_skeleton(refused.place.digest) is None
    assert os.listdir(storage.images_dir / "tocs") == os.listdir(storage.images_dir / "skeletons") == []


def test_a_skeleton_of_another_toc_is_not_published(storage: ImageStorage) -> None:
    made = make(storage)
    other = Digest.of(b"other")
    with storage.lazy.stage_skeleton(other) as tree, pytest.raises(DigestMismatch):
        storage.lazy.publish_skeleton(tree, made.record.layer)
    storage.lazy.skeletons.discard(TOC)
    shutil.rmtree(storage.images_dir / "tocs" / TOC.name)
    with storage.lazy.stage_skeleton(TOC) as tree, pytest.raises(NotInStore):
        storage.lazy.publish_skeleton(tree, made.record.layer)


def test_a_skeleton_of_another_boot_is_void_and_its_toc_is_not(storage: ImageStorage) -> None:
    made = make(storage)
    record = made.record_path
    head, _, tables = record.read_bytes().partition(b"\n")
    record.write_bytes(head.replace(b'"boot_id":"', b'"boot_id":"another') + b"\n" + tables)
    with ImageStorage(storage.images_dir) as later:
        assert later.lazy.open_skeleton(TOC) is None
        assert later.sweep().void == 1
        toc = later.lazy.tocs.find(TOC)
        assert toc is not None
        later.lazy.make_skeleton(toc, LAYER.blob_place)
        assert later.lazy.open_skeleton(TOC) is not None


@pytest.mark.allow_warnings
def test_a_copy_of_a_skeleton_is_void(storage: ImageStorage) -> None:
    made = make(storage)
    aside = made.path.with_name("aside")
    made.path.rename(aside)
    made.path.mkdir()
    copy_entries([(os.fsencode(aside / "b"), os.fsencode(made.path / "b"))])
    assert ImageStorage(storage.images_dir).lazy.open_skeleton(TOC) is None


def test_what_killed_processes_left_is_swept(storage: ImageStorage) -> None:
    def work() -> None:
        storage.lazy.stage_toc(TOC).write(LAYER.toc)
        storage.lazy.stage_skeleton(TOC)

    with child(work):
        storage.sweep()
        assert len(leftovers(storage.images_dir)) == 2
    assert storage.sweep().trees == 2
    assert leftovers(storage.images_dir) == []


def test_an_archive_that_differs_from_its_toc_is_remembered(storage: ImageStorage) -> None:
    make(storage)
    blob, other = LAYER.digest, Digest.of(b"other")
    assert storage.lazy.tocs.difference(TOC, blob) == ""
    storage.lazy.tocs.note_difference(TOC, blob, "etc/a: mode 0644 (expected 0600)")
    with ImageStorage(storage.images_dir) as later:
        assert later.lazy.tocs.difference(TOC, blob) == "etc/a: mode 0644 (expected 0600)"
        assert later.lazy.tocs.difference(TOC, other) == ""
    assert storage.lazy.tocs.find(TOC) is not None
    assert leftovers(storage.images_dir) == []


def test_a_store_that_can_hold_skeletons_says_no_problem(storage: ImageStorage) -> None:
    assert storage.lazy.problem() == ""
    assert os.listdir(storage.images_dir / "skeletons") == []


@pytest.mark.allow_warnings
def test_a_store_without_attributes_has_no_lazy_layers(tmp_path: Path) -> None:
    with ramfs(tmp_path / "bare") as place, ImageStorage(place / "store") as storage:
        assert "no attributes" in storage.lazy.problem()


def test_a_full_disk_leaves_no_skeleton_and_no_toc(tmp_path: Path) -> None:
    many = estargz(tar([file(f"{number}", b"x") for number in range(300)]))
    with (
        tmpfs(tmp_path / "small", "size=2m", "nr_inodes=150") as place,
        ImageStorage(place / "store") as storage,
    ):
        with pytest.raises(StoreFull):
            make(storage, many)
        assert storage.lazy.open_skeleton(many.place.digest) is None
        assert leftovers(storage.images_dir) == []
        assert make(storage).path.exists()


Calls = Callable[[ImageStorage], object]


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda storage: storage.lazy.stage_toc(TOC), id="a TOC"),
        pytest.param(lambda storage: storage.lazy.stage_skeleton(TOC), id="a skeleton"),
    ],
)
def test_a_store_that_may_only_be_read_takes_nothing(
    storage: ImageStorage, monkeypatch: pytest.MonkeyPatch, call: Calls
) -> None:
    make(storage)
    monkeypatch.setattr("layerfs.store.gate.StoreGate._is_writable", lambda *_: False)
    with ImageStorage(storage.images_dir) as readonly:
        assert readonly.lazy.open_skeleton(TOC) is not None
        assert "only be read" in readonly.lazy.problem()
        with pytest.raises(StoreReadOnly):
            call(readonly)
