"""A store within its limits, on a real filesystem that is small."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.catalog.inventory import take_inventory
from layerfs.errors import StoreFull
from layerfs.gc.keeper import Keeper
from layerfs.gc.limits import Limits
from layerfs.oci import Digest, Repository
from layerfs.settings.kinds import Amount
from layerfs.store import ImageStorage
from tests.store.helpers import publish
from tests.support.images import BuiltImage, file, image, layer

REPOSITORY = Repository.parse("r.example/a")
MEGABYTE = 1 << 20


@pytest.fixture
def storage(store: Path) -> Iterator[ImageStorage]:
    """A new store."""
    with ImageStorage(store) as opened:
        yield opened


def fill(storage: ImageStorage, count: int) -> list[tuple[BuiltImage, Digest]]:
    """Put images of one layer of a megabyte into the store, the oldest first; each uses two."""
    made = []
    for number in range(count):
        built = layer(file("data", os.urandom(MEGABYTE)), compression="none")
        found = publish(storage, built.blob)
        whole = image(built)
        storage.save_manifest(whole.manifest, whole.digest)
        storage.save_config(whole.config, whole.config_digest)
        storage.refs.write(REPOSITORY.with_tag(str(number)), whole.digest)
        when = time.time() - 10_000 + number
        os.utime(f"{found.path}.json", (when, when))
        made.append((whole, found.digest))
    return made


def here(storage: ImageStorage, made: list[tuple[BuiltImage, Digest]]) -> list[int]:
    """Say which of them have their layer."""
    return [
        number
        for number, (_, digest) in enumerate(made)
        if os.path.lexists(storage.layer_extracted_path(digest))
    ]


def test_what_was_not_used_for_longest_goes_and_can_still_be_named(storage: ImageStorage) -> None:
    made = fill(storage, 6)
    before = take_inventory(storage).total
    assert Keeper(storage, Limits(max_size=Amount(before + 1))).keep() == 0
    freed = Keeper(storage, Limits(max_size=Amount(before - 1))).keep()
    after = take_inventory(storage).total
    assert after <= 0.9 * before
    assert before - after == pytest.approx(freed, abs=100_000)
    assert here(storage, made) == [2, 3, 4, 5]  # a tenth of the whole is more than one layer
    assert len(list(storage.refs.all())) == 6
    assert all(storage.has_manifest(whole.digest) for whole, _ in made)


def test_garbage_goes_before_what_an_image_needs(storage: ImageStorage) -> None:
    made = fill(storage, 4)
    storage.refs.remove(REPOSITORY.with_tag("3"))
    Keeper(storage, Limits(max_size=Amount(take_inventory(storage).total - 1))).keep()
    assert here(storage, made) == [0, 1, 2]


@pytest.mark.allow_warnings  # that nothing else can go
def test_what_is_pinned_or_leased_stays_whatever_the_limit(storage: ImageStorage) -> None:
    made = fill(storage, 4)
    with storage.lease("mine", [made[0][1]]):
        Keeper(storage, Limits(max_size=Amount(1), pins=("r.example/a:2",))).keep()
        assert here(storage, made) == [0, 2]


def test_a_pull_that_cannot_fit_says_so_with_the_numbers(storage: ImageStorage) -> None:
    keeper = Keeper(storage, Limits(max_size=Amount(MEGABYTE)))
    keeper.require_room("r.example/a:1", MEGABYTE)
    with pytest.raises(StoreFull, match=r"a:1: 1\.1 MB in blobs alone \(expected 1\.0 MB, max_size"):
        keeper.require_room("r.example/a:1", MEGABYTE + 50_000)
    with pytest.raises(
        StoreFull, match=r"needs 1,000,000,000,\d{3}\.\d MB .* has [\d,.]+ MB, and 0\.0 MB can go"
    ):
        Keeper(storage, Limits()).require_room("r.example/a:1", 10**18)


def test_of_two_whom_the_disk_is_full_for_both_are_told_of_the_room(storage: ImageStorage) -> None:
    made = fill(storage, 1)
    storage.refs.remove(REPOSITORY.with_tag("0"))
    keeper = Keeper(storage, Limits())
    began = time.monotonic()

    assert keeper.make_room(began)
    assert here(storage, made) == []
    assert keeper.make_room(began), "the room was made while it worked"
    assert not keeper.make_room(time.monotonic())
