"""Lazy layers in a collection: what a skeleton names stays, and the skeletons that images need."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from layerfs.catalog.inventory import take_inventory
from layerfs.gc.jobs import collect_garbage, remove_images, survey
from layerfs.gc.keeper import Keeper
from layerfs.gc.limits import Limits
from layerfs.oci import Digest, Repository
from layerfs.settings.kinds import Amount
from layerfs.store import ImageStorage
from layerfs.store.measure import disk_usage
from layerfs.store.stock import Stored
from tests.support.images import BuiltImage, file, image, tar
from tests.support.tocs import LazyLayer, estargz

pytestmark = pytest.mark.needs_root

DEMO = Repository.of("localhost:5000", "team/demo")
SHARED, OWN, OTHER = b"shared" * 3000, b"own" * 3000, b"other" * 100_000
FIRST = estargz(tar([file("a", SHARED), file("b", OWN)]))
SECOND = estargz(tar([file("c", SHARED), file("d", OTHER)]))


def have(storage: ImageStorage, lazy: LazyLayer, *contents: bytes) -> None:
    """Have the skeleton of a layer, and some of its files."""
    toc = lazy.place.digest
    with storage.lazy.stage_toc(toc) as staged:
        staged.write(lazy.toc)
        storage.lazy.make_skeleton(staged, lazy.blob_place)
    for content in contents:
        found = storage.lazy.content(toc, Digest.of(content).object_id)
        with storage.lazy.objects.stage(found) as one:
            one.write(found.pieces[0], content)
            one.commit()


def knows(storage: ImageStorage, built: BuiltImage, tag: str) -> None:
    """Have the documents of an image, and a name for it."""
    storage.save_manifest(built.manifest, built.digest)
    storage.save_config(built.config, built.config_digest)
    storage.refs.write(DEMO.with_tag(tag), built.digest)


def objects(storage: ImageStorage) -> set[str]:
    """Return the objects that are here."""
    return {id_ for id_, _ in storage.lazy.objects.all()}


def ids(*contents: bytes) -> set[str]:
    """Return the objects that hold these contents."""
    return {Digest.of(content).object_id for content in contents}


@pytest.fixture
def storage(store: Path) -> Iterator[ImageStorage]:
    """Two images with a file in common; all files are here."""
    with ImageStorage(store) as storage:
        knows(storage, image(FIRST.built), "first")
        knows(storage, image(SECOND.built), "second")
        have(storage, FIRST, SHARED, OWN)
        have(storage, SECOND, SHARED, OTHER)
        yield storage


def test_what_images_need_is_counted_and_stays(storage: ImageStorage) -> None:
    inventory = take_inventory(storage)
    tocs = {FIRST.place.digest, SECOND.place.digest}
    assert set(inventory.of("skeleton")) == set(inventory.of("toc")) == tocs
    assert set(inventory.objects) == ids(SHARED, OWN, OTHER)
    assert inventory.total == disk_usage(storage.images_dir)

    assert collect_garbage(storage).freed == 0

    assert objects(storage) == ids(SHARED, OWN, OTHER)
    assert storage.lazy.open_skeleton(FIRST.place.digest) is not None


def test_what_no_image_needs_any_more_goes_with_its_files(storage: ImageStorage) -> None:
    storage.refs.remove(next(name for name, _ in storage.refs.all() if str(name).endswith(":first")))
    seen = survey(storage)
    assert set(seen.objects) == ids(OWN)
    assert collect_garbage(storage, dry_run=True).freed > 0
    assert objects(storage) == ids(SHARED, OWN, OTHER)

    done = collect_garbage(storage)

    toc = FIRST.place.digest
    assert {Stored("skeleton", toc), Stored("toc", toc)} <= set(done.removed)
    assert objects(storage) == ids(SHARED, OTHER)
    assert storage.lazy.open_skeleton(toc) is None
    assert storage.lazy.tocs.find(toc) is None
    assert take_inventory(storage).total == disk_usage(storage.images_dir)


def test_removing_an_image_takes_what_only_it_needed(storage: ImageStorage) -> None:
    with_no_skeleton = b"stray"
    chosen = {name: entry for name, entry in storage.refs.all() if str(name).endswith(":second")}
    have(storage, estargz(tar([file("x", with_no_skeleton)])), with_no_skeleton)
    storage.lazy.skeletons.discard(estargz(tar([file("x", with_no_skeleton)])).place.digest)
    (toc,) = storage.lazy.tocs.names() - {FIRST.place.digest, SECOND.place.digest}
    storage.remover.remove([Stored("toc", toc)], lambda: lambda _: "")

    assert set(remove_images(storage, chosen, dry_run=True).objects) == ids(OTHER)
    assert set(remove_images(storage, chosen).objects) == ids(OTHER)

    assert objects(storage) == ids(SHARED, OWN, with_no_skeleton)
    collect_garbage(storage)
    assert objects(storage) == ids(SHARED, OWN)


def test_what_a_lost_skeleton_named_is_not_garbage(storage: ImageStorage) -> None:
    storage.lazy.skeletons.discard(FIRST.place.digest)
    collect_garbage(storage)
    assert objects(storage) == ids(SHARED, OWN, OTHER)


def test_what_was_used_lately_is_spared(storage: ImageStorage) -> None:
    for name in dict(storage.refs.all()):
        storage.refs.remove(name)
    collect_garbage(storage, older_than=3600)
    assert objects(storage) == ids(SHARED, OWN, OTHER)
    collect_garbage(storage)
    assert objects(storage) == set()


def test_a_lease_on_an_image_keeps_its_files(storage: ImageStorage) -> None:
    for name in dict(storage.refs.all()):
        storage.refs.remove(name)
    with storage.lease("x", [image(FIRST.built).digest], until=datetime.now(UTC) + timedelta(hours=1)):
        collect_garbage(storage)
        assert objects(storage) == ids(SHARED, OWN)


def test_the_files_that_were_not_used_for_longest_go_when_room_is_short(storage: ImageStorage) -> None:
    shelf = storage.lazy.objects
    for content in (OTHER, SHARED):
        path = shelf.directory / Digest.of(content).object_id[:2] / Digest.of(content).object_id[2:]
        status = os.stat(path)
        os.utime(path, ns=(0, status.st_mtime_ns - 10 * 3600 * 10**9))
    most = take_inventory(storage).total - 4096
    keeper = Keeper(storage, Limits(max_size=Amount(most), pins=("localhost:5000/team/demo:first",)))

    assert keeper.keep() > 0

    assert objects(storage) == ids(SHARED, OWN)
    assert storage.lazy.open_skeleton(SECOND.place.digest) is not None
