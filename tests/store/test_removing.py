"""Removal of many things at once: what is set aside, what gets its name back, what a kill leaves."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerfs.errors import StoreError
from layerfs.oci import Digest
from layerfs.store import ImageStorage
from layerfs.store.layout import staged
from layerfs.store.locks import ByteLock
from layerfs.store.removing import Removal
from layerfs.store.stock import Stored
from tests.store.helpers import leftovers, publish
from tests.support.clients import wait_until
from tests.support.images import file, image, layer

IMAGE = image(layer(file("a", b"a")))


@pytest.fixture
def storage(store: Path) -> Iterator[ImageStorage]:
    """A new store."""
    with ImageStorage(store) as opened:
        yield opened


@pytest.fixture
def things(storage: ImageStorage) -> list[Stored]:
    """One thing of each kind."""
    digest = publish(storage, b"content").digest
    storage.save_manifest(IMAGE.manifest, IMAGE.digest)
    storage.save_config(IMAGE.config, IMAGE.config_digest)
    cover = storage.publish_cover([digest]).name
    return [
        Stored("layer", digest), Stored("cover", Digest.from_name(cover)), Stored("blob", digest),
        Stored("manifest", IMAGE.digest), Stored("config", IMAGE.config_digest),
    ]  # fmt: skip


def nobody() -> Callable[[Stored], str]:
    """Need nothing."""
    return lambda what: ""


def here(storage: ImageStorage, things: list[Stored]) -> list[Stored]:
    """Return what has its final name."""
    return [what for what in things if os.path.lexists(storage.stock.path(what))]


def test_what_nobody_needs_is_gone_with_its_record(storage: ImageStorage, things: list[Stored]) -> None:
    assert storage.remover.remove(things, nobody).removed == things
    assert here(storage, things) == []
    for place in ("extracted", "covers", "layers", "manifests", "configs"):
        assert os.listdir(storage.images_dir / place) == []


def test_what_is_needed_after_all_gets_its_name_back(storage: ImageStorage, things: list[Stored]) -> None:
    seen: list[list[Stored]] = []

    def needed() -> Callable[[Stored], str]:
        seen.append(here(storage, things))
        return lambda what: "somebody" if what.kind in ("layer", "blob") and len(seen) > 1 else ""

    done = storage.remover.remove(things, needed)
    assert seen == [things, []]  # all were aside when users were looked for once more
    assert {(what.kind, reason) for what, reason in done.kept} == {
        ("layer", "somebody"),
        ("blob", "somebody"),
    }
    assert [what.kind for what in here(storage, things)] == ["layer", "blob"]
    assert storage.open_layer(things[0].digest) is not None
    assert leftovers(storage.images_dir) == []


def test_when_users_cannot_be_looked_for_all_is_put_back(storage: ImageStorage, things: list[Stored]) -> None:
    looks = 0

    def needed() -> Callable[[Stored], str]:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise StoreError("no look")
        return nobody()

    with pytest.raises(StoreError, match="no look"):
        storage.remover.remove(things, needed)
    assert looks == 2
    assert here(storage, things) == things
    assert leftovers(storage.images_dir) == []


@pytest.mark.parametrize("lock", ["presence", "publication"])
def test_what_somebody_works_with_stays(storage: ImageStorage, things: list[Stored], lock: str) -> None:
    digest = things[0].digest
    held = getattr(storage.locks, lock)(digest)
    assert held.try_acquire()
    done = storage.remover.remove(things, nobody)
    held.release()
    assert [what.kind for what, _ in done.kept] == ["layer", "blob"]
    assert here(storage, things) == [things[0], things[2]]


def test_what_is_not_there_is_said(storage: ImageStorage) -> None:
    missing = Stored("blob", Digest.of(b"missing"))
    assert storage.remover.remove([missing], nobody) == Removal(absent=[missing])


def test_what_a_killed_remover_set_aside_comes_back(storage: ImageStorage, things: list[Stored]) -> None:
    for what in things:
        final = storage.stock.path(what)
        final.rename(staged(final.parent, final.name, "aside"))
    storage.sweep()
    assert here(storage, things) == things
    assert storage.open_layer(things[0].digest) is not None
    assert leftovers(storage.images_dir) == []


def test_what_was_fetched_again_meanwhile_stays_and_the_other_goes(
    storage: ImageStorage, things: list[Stored]
) -> None:
    final = storage.stock.path(things[0])
    aside = staged(final.parent, final.name, "aside")
    final.rename(aside)
    publish(storage, b"content")
    storage.sweep()
    assert storage.open_layer(things[0].digest) is not None
    assert not aside.exists()


def test_a_sweep_does_not_touch_what_a_living_remover_set_aside(
    storage: ImageStorage, things: list[Stored], store: Path
) -> None:
    def needed() -> Callable[[Stored], str]:
        aside.append(leftovers(store))
        ImageStorage(store).sweep()
        return lambda what: "somebody" if len(aside) > 1 else ""

    aside: list[list[str]] = []
    storage.remover.remove(things[2:], needed)
    assert [len(each) for each in aside] == [0, 3]
    assert here(storage, things) == things


def test_what_is_needed_at_the_first_look_is_never_away(storage: ImageStorage, things: list[Stored]) -> None:
    seen: list[list[Stored]] = []

    def needed() -> Callable[[Stored], str]:
        seen.append(here(storage, things))
        return lambda what: "somebody" if what.kind == "layer" else ""

    storage.remover.remove(things, needed)
    assert [things[0] in each for each in seen] == [True, True]


def test_who_has_taken_a_lease_finds_nothing_away_for_a_moment(
    storage: ImageStorage, things: list[Stored], store: Path
) -> None:
    digest, found = things[0].digest, []

    def use() -> None:
        with ImageStorage(store) as other, other.lease("mine", [digest]):
            found.append(other.open_layer(digest))

    user = threading.Thread(target=use)

    def needed() -> Callable[[Stored], str]:
        if not user.ident:
            user.start()
            return nobody()
        wait_until(lambda: bool(storage.leases.holding()) or not user.is_alive())
        leased = {each for _, lease in storage.leases.holding() for each in lease.needed()}
        return lambda what: "leased" if what.digest in leased else ""

    done = storage.remover.remove(things[:1], needed)
    user.join()
    assert done.kept == [(things[0], "leased")]
    assert [layer is not None for layer in found] == [True]


def test_when_a_thing_cannot_be_set_aside_the_others_are_put_back(
    storage: ImageStorage, things: list[Stored], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0
    real = storage.locks.take

    def take(path: Path) -> ByteLock:
        nonlocal taken
        taken += 1
        if taken == 3:
            raise StoreError("Too many open files")
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(storage.locks, "take", take)
        with pytest.raises(StoreError, match="Too many open files"):
            storage.remover.remove(things, nobody)
    assert here(storage, things) == things
    assert leftovers(storage.images_dir) == []
