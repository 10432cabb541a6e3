"""What a store holds, and which refs need it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.catalog.inventory import take_inventory
from layerfs.oci import Digest, Repository, stack_digest
from layerfs.store import ImageStorage
from layerfs.store.measure import disk_usage
from layerfs.store.records import MERGERS
from layerfs.store.scratch import make_scratch
from layerfs.store.stock import Stored
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
    covers = (stack_digest(layers, merger) for merger in MERGERS)
    return frozenset({built.digest, built.config_digest, *layers, *covers})


def test_an_empty_store_holds_nothing(storage: ImageStorage) -> None:
    found = take_inventory(storage)
    assert found.things == {}
    assert found.images == {}
    assert found.bundles == {}
    assert found.total == found.other == disk_usage(storage.images_dir)


def test_everything_is_counted_as_du_does(storage: ImageStorage) -> None:
    _, digest = blob_of(b"content")
    path = publish(storage, b"content").path
    keep(storage, SMALL, "1")
    found = take_inventory(storage)
    assert found.of("blob") == {digest: disk_usage(storage.layer_tarball_path(digest))}
    assert found.of("layer") == {digest: disk_usage(path, f"{path}.json")}
    assert found.of("manifest").keys() | found.of("config") == {SMALL.digest, SMALL.config_digest}
    assert found.leftovers == {}
    assert found.total == disk_usage(storage.images_dir)


def test_the_size_of_a_durable_tree_is_measured_once(storage: ImageStorage) -> None:
    layer = publish(storage, b"content")
    storage.make_durable()
    what = Stored("layer", layer.digest)
    held = take_inventory(storage).things[what]
    (layer.path / "more").write_bytes(b"more" * 5000)
    assert take_inventory(storage).things[what] == held
    moved = layer.path.with_name("moved")
    layer.path.rename(moved)
    shutil.copytree(moved, layer.path)  # another tree, so another size
    assert take_inventory(storage).things[what].size > held.size


def test_a_tree_without_a_record_counts_and_foreign_names_do_not(storage: ImageStorage, store: Path) -> None:
    void = Digest.of(b"void")
    storage.layer_extracted_path(void).mkdir()
    (store / "layers/README").write_text("what somebody put there")
    assert take_inventory(storage).of("layer") == {void: disk_usage(storage.layer_extracted_path(void))}
    assert take_inventory(storage).of("blob") == {}


def test_what_is_on_its_way_or_was_left_is_a_leftover(storage: ImageStorage) -> None:
    digest = Digest.of(b"x")
    with storage.stage_layer_download(digest) as staged, storage.stage_tree(digest) as tree:
        staged.write(b"12345")
        found = {path: held.size for path, held in take_inventory(storage).leftovers.items()}
        assert found == {path: disk_usage(path) for path in (staged.staged_path, tree.path)}


def test_covers_and_scratches_count_what_they_take_of_the_disk(storage: ImageStorage, tmp_path: Path) -> None:
    cover = storage.publish_cover([publish(storage, b"content").digest])
    assert list(take_inventory(storage).of("cover").values()) == [disk_usage(cover, f"{cover}.json")]
    scratch = make_scratch(storage.images_dir, b"/mnt/x", tmp_path)
    (scratch.upper / "written").write_bytes(b"x" * 100_000)
    found = take_inventory(storage)
    assert {path: held.size for path, held in found.scratches.items()} == {
        scratch.path: disk_usage(scratch.path)
    }
    assert found.total == disk_usage(storage.images_dir)
    scratch.remove()


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
    assert {path: held.size for path, held in found.bundles.items()} == {place: disk_usage(place)}
