"""What a store holds, and which refs need it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.catalog.inventory import take_inventory
from layerfs.oci import Digest, Repository, stack_digest
from layerfs.store import ImageStorage
from layerfs.store.disk import disk_usage
from layerfs.store.scratch import make_scratch
from tests.store.helpers import blob_of, publish
from tests.support.images import BuiltImage, file, image, index, layer

SHARED, OWN = layer(file("a", b"shared" * 10)), layer(file("b", b"own"))
BIG, SMALL = image(SHARED, OWN), image(SHARED)
BOTH = index(BIG, SMALL)
REPOSITORY = Repository.parse("r.example/a")


@pytest.fixture
def storage(store: Path) -> Iterator[ImageStorage]:
    """A new store."""
    with ImageStorage(store) as opened:
        yield opened


def keep(storage: ImageStorage, built: BuiltImage, tag: str) -> None:
    """Keep the documents of an image, and its name."""
    storage.save_manifest(built.manifest, built.digest)
    storage.save_config(built.config, built.config_digest)
    storage.refs.write(REPOSITORY.with_tag(tag), built.digest)


def needed(built: BuiltImage, *layers: Digest) -> frozenset[Digest]:
    """Return what an image with *layers* needs."""
    return frozenset({built.digest, built.config_digest, *layers})


def test_an_empty_store_holds_nothing(storage: ImageStorage) -> None:
    found = take_inventory(storage)
    assert found.total == 0
    assert found.images == {}
    assert found.bundles == {}


def test_everything_is_counted_with_its_size(storage: ImageStorage) -> None:
    content, digest = blob_of(b"content")
    record = publish(storage, b"content").record
    keep(storage, SMALL, "1")
    found = take_inventory(storage)
    assert found.blobs == {digest: len(content)}
    assert found.trees == {digest: record.layer.file_bytes}
    assert found.documents == {SMALL.digest: len(SMALL.manifest), SMALL.config_digest: len(SMALL.config)}
    assert found.leftovers == {}
    assert found.total == (len(content) + record.layer.file_bytes + len(SMALL.manifest) + len(SMALL.config))


def test_covers_and_scratches_count_what_they_take_of_the_disk(storage: ImageStorage, tmp_path: Path) -> None:
    layers = [publish(storage, b"content").digest]
    cover = storage.publish_cover(layers)
    before = take_inventory(storage)
    assert before.covers == {stack_digest(layers): disk_usage(cover)}
    assert before.scratches == {}
    scratch = make_scratch(storage.images_dir, b"/mnt/x", tmp_path)
    (scratch.upper / "written").write_bytes(b"x" * 100_000)
    found = take_inventory(storage)
    assert found.scratches == {scratch: disk_usage(scratch.path)}
    assert found.scratches[scratch] >= 100_000
    assert found.total == before.total + found.scratches[scratch]


def test_a_tree_without_a_record_and_foreign_names_count_nothing(storage: ImageStorage, store: Path) -> None:
    void = Digest.of(b"void")
    storage.layer_extracted_path(void).mkdir()
    (store / "layers/README").write_text("what somebody put there")
    found = take_inventory(storage)
    assert found.trees == {void: 0}
    assert found.total == 0


def test_what_is_on_its_way_or_was_left_is_a_leftover(storage: ImageStorage) -> None:
    digest = Digest.of(b"x")
    with storage.stage_layer_download(digest) as staged, storage.stage_tree(digest) as tree:
        staged.write(b"12345")
        assert take_inventory(storage).leftovers == {staged.staged_path: 5, tree.path: 0}


def test_an_image_needs_its_documents_and_layers_and_shares_some(storage: ImageStorage) -> None:
    keep(storage, BIG, "big")
    keep(storage, SMALL, "small")
    found = take_inventory(storage)
    assert found.images == {
        REPOSITORY.with_tag("big").reference: needed(BIG, SHARED.digest, OWN.digest),
        REPOSITORY.with_tag("small").reference: needed(SMALL, SHARED.digest),
    }
    assert found.users[SHARED.digest] == 2
    assert found.users[OWN.digest] == 1


def test_an_index_needs_what_is_below_it_as_far_as_that_is_known(storage: ImageStorage) -> None:
    storage.save_manifest(BOTH.manifest, BOTH.digest)
    storage.save_manifest(SMALL.manifest, SMALL.digest)
    storage.refs.write(REPOSITORY.with_tag("1"), BOTH.digest)
    found = take_inventory(storage)
    assert found.images == {REPOSITORY.with_tag("1").reference: needed(SMALL, SHARED.digest) | {BOTH.digest}}


def test_of_an_unknown_image_only_the_name_is_needed(storage: ImageStorage) -> None:
    storage.refs.write(REPOSITORY.with_tag("1"), BIG.digest)
    assert take_inventory(storage).images == {REPOSITORY.with_tag("1").reference: frozenset({BIG.digest})}


def test_stores_of_bundles_are_counted_as_a_whole(storage: ImageStorage, store: Path) -> None:
    (store / "local/README").write_text("no store")
    place = storage.local_bundle_cache_dir("/srv/lay", SMALL.digest)
    with ImageStorage(place) as inner:
        keep(inner, SMALL, "1")
    found = take_inventory(storage)
    assert found.bundles == {place: len(SMALL.manifest) + len(SMALL.config)}
    assert found.total == 0
