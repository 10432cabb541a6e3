"""Which known image names a layer or a stack, and what is missing of it. Nothing here waits."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.catalog.known import KnownImages
from layerfs.errors import NotInStore
from layerfs.needs import BlobNeed, DocumentNeed, FileNeed, LayersNeed, TagNeed
from layerfs.oci import Digest, Platform, Repository
from layerfs.store import ImageStorage
from tests.support.clients import wait_until
from tests.support.images import file, image, index, layer, tar
from tests.support.tocs import estargz

LOWER, UPPER = layer(file("a", b"lower")), layer(file("b", b"upper"))
IMAGE = image(LOWER, UPPER)
REPOSITORY = Repository.parse("r.example/a")
PLATFORM = Platform.of("linux", "amd64", "")
MISSING = DocumentNeed(REPOSITORY, IMAGE.digest)


@pytest.fixture
def storage(store: Path) -> Iterator[ImageStorage]:
    """A store that knows the manifest of an image by a tag, but not its config."""
    with ImageStorage(store) as opened:
        opened.save_manifest(IMAGE.manifest, IMAGE.digest)
        opened.refs.write(REPOSITORY.with_tag("1"), IMAGE.digest)
        yield opened


def test_every_need_says_from_which_repository() -> None:
    assert TagNeed(REPOSITORY.with_tag("1")).repository == MISSING.repository == REPOSITORY


def test_a_layer_that_no_image_names_cannot_be_had(storage: ImageStorage) -> None:
    known = KnownImages(storage, PLATFORM)
    stranger = Digest.of(b"stranger")
    assert known.layer(stranger) is None
    assert known.layer_of_id(stranger.short_id) is None
    assert known.blob_size(stranger) == 0
    for need in (known.layer_need, known.blob_need):
        with pytest.raises(NotInStore, match=f"layer {stranger}: no known image names it"):
            need(stranger)


def test_without_the_config_the_documents_are_needed_first(storage: ImageStorage) -> None:
    known = KnownImages(storage, PLATFORM)
    assert known.layer(UPPER.digest) == MISSING
    assert known.layer_need(UPPER.digest) == known.blob_need(UPPER.digest) == MISSING
    [stack] = known.stack_ids()
    assert known.knows_stack(stack)
    assert known.stack(stack) == MISSING
    assert known.stack_layers(stack) == (LOWER.digest, UPPER.digest)
    assert not known.documents.is_complete(REPOSITORY, IMAGE.digest)


def test_with_all_documents_the_layers_are_needed(storage: ImageStorage) -> None:
    storage.save_config(IMAGE.config, IMAGE.config_digest)
    known = KnownImages(storage, PLATFORM)
    assert known.layer_of_id(UPPER.digest.short_id) == UPPER.digest
    assert known.blob_size(UPPER.digest) == len(UPPER.blob)
    need = known.layer_need(UPPER.digest)
    assert isinstance(need, LayersNeed)
    assert (need.repository, need.image.manifest.digest, need.numbers) == (REPOSITORY, IMAGE.digest, (1,))
    blob = known.blob_need(UPPER.digest)
    assert isinstance(blob, BlobNeed)
    assert (blob.repository, blob.descriptor.digest) == (REPOSITORY, UPPER.digest)
    [stack] = known.stack_ids()
    found = known.stack(stack)
    assert not isinstance(found, DocumentNeed)
    assert found == (REPOSITORY, need.image)


@pytest.mark.allow_warnings
def test_a_document_that_the_disk_gives_again_is_looked_at_again(store: Path) -> None:
    with ImageStorage(store) as storage:
        path = storage.save_manifest(IMAGE.manifest, IMAGE.digest)
        storage.refs.write(REPOSITORY.with_tag("1"), IMAGE.digest)
        known = KnownImages(storage, PLATFORM)
        path.write_bytes(b"damaged")
        assert known.stack_ids() == []
        path.write_bytes(IMAGE.manifest)
        wait_until(lambda: known.knows_layer(UPPER.digest), 10)  # a scan is not repeated at once


@pytest.mark.allow_warnings
def test_what_is_no_manifest_is_read_and_reported_once(
    store: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerfs.catalog.known._RESCAN_COST", 0)  # every question is a scan
    text = b'{"schemaVersion": 2}'
    with ImageStorage(store) as storage:
        storage.save_manifest(text, Digest.of(text))
        storage.refs.write(REPOSITORY.with_tag("1"), Digest.of(text))
        known = KnownImages(storage, PLATFORM)
        for _ in range(3):
            assert known.stack_ids() == []
    [said] = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert str(Digest.of(text)) in said


def test_of_an_index_the_manifest_of_the_platform_is_needed(store: Path) -> None:
    platforms = Platform.of("linux", "amd64", ""), Platform.of("linux", "arm64", "")
    built = [image(LOWER, platform=platform) for platform in platforms]
    both = index(*built)
    with ImageStorage(store) as storage:
        storage.save_manifest(both.manifest, both.digest)
        for platform, one in zip(platforms, built, strict=True):
            known = KnownImages(storage, platform)
            assert known.enter(REPOSITORY, both.digest) == DocumentNeed(REPOSITORY, one.digest)


def test_an_object_can_be_had_from_whatever_names_it(store: Path) -> None:
    """Three layers: two have the file, one of them in two registries; a third is not read yet."""
    first, second = (estargz(tar([file("a", b"same"), file("b", one)])) for one in (b"1", b"2"))
    third, fourth = (estargz(tar([file("b", one)])) for one in (b"3", b"4"))
    object_ = Digest.of(b"same").object_id
    names = {first.place.digest: True, second.place.digest: True, fourth.place.digest: None}
    elsewhere = Repository.parse("other.example/b")
    with ImageStorage(store) as storage:
        known = KnownImages(storage, PLATFORM)
        known.views._names = lambda toc, id_: id_ == object_ and names.get(toc, False)
        for repository, layers in ((REPOSITORY, (first, third)), (elsewhere, (first, second, fourth))):
            built = image(*(one.built for one in layers))
            storage.save_manifest(built.manifest, built.digest)
            storage.save_config(built.config, built.config_digest)
            storage.refs.write(repository.with_tag("1"), built.digest)
        need = known.views.object_need(object_)
        assert known.views.object_need(Digest.of(b"stranger").object_id) is None
    assert isinstance(need, FileNeed)
    found = [(one.repository, one.toc, one.is_sure) for one in (need, *need.others)]
    assert set(found[:3]) == {
        (REPOSITORY, first.place.digest, True),
        (elsewhere, first.place.digest, True),
        (elsewhere, second.place.digest, True),
    }
    assert found[3:] == [(elsewhere, fourth.place.digest, False)]
    assert all(one.id == object_ for one in need.others)
    for one in (need, *need.others):
        place = one.image.layers[one.number].place
        assert place is not None
        assert place.digest == one.toc
