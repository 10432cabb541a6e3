"""Any sequence of uses, removals and deaths agrees with a model: what is needed is there, all else goes."""

import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from layerfs.errors import NotInStore, StoreError
from layerfs.gc.jobs import collect_garbage, remove_images
from layerfs.gc.keeper import Keeper
from layerfs.gc.limits import Limits
from layerfs.oci import Digest, ImageReference, stack_digest
from layerfs.settings.kinds import Amount
from layerfs.store import ImageStorage
from layerfs.store.layout import StagedName, staged
from layerfs.store.stock import Stored, StoredKind
from tests.gc.racing import (
    DIGESTS,
    FILES,
    IMAGES,
    LAYERS,
    REPOSITORY,
    STACKS,
    content_of,
    fill,
    mount_stack,
    names_of,
    private_mounts,
    unmount_stack,
)
from tests.store.helpers import apart, leftovers, publish
from tests.store.test_crash import ExtractorsHere

layers = st.integers(0, len(LAYERS) - 1)
images = st.integers(0, len(IMAGES) - 1)
stores = st.integers(0, 1)
"""Two of them are open on one directory."""
COVERS = [stack_digest([DIGESTS[number] for number in stack]) for stack in STACKS]
TREES = ("layer", "cover")


class StoreAgreesWithAModel(RuleBasedStateMachine):
    """`here` is what has its final name, exactly; `refs`, `leases` and `mounts` need some of it."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="layerfs-model-", dir="/dev/shm"))
        self.storages = [self.opened(), self.opened()]
        self.here: set[Stored] = set()
        self.aside: dict[Stored, Path] = {}
        """What a remover had set aside when it was killed, and a sweep gives back."""
        self.suspended: set[Digest] = set()
        self.refs: dict[tuple[int, bool], int] = {}
        """Images by tag and by digest."""
        self.leases: dict[str, frozenset[Digest]] = {}
        self.mounts: dict[int, Path] = {}

    def opened(self) -> ImageStorage:
        storage = ImageStorage(self.place / "store")
        storage._extractors = ExtractorsHere(lambda: storage.capabilities)  # type: ignore[assignment]  # see there
        return storage

    def teardown(self) -> None:
        for which in list(self.mounts):
            unmount_stack(self.mounts[which])
        for storage in self.storages:
            storage.close()
        shutil.rmtree(self.place)

    # The model

    def digests_of(self, which: int) -> frozenset[Digest]:
        built = IMAGES[which]
        return frozenset(
            {built.digest, built.config_digest, COVERS[which], *(one.digest for one in built.layers)}
        )

    def used(self, what: Stored) -> bool:
        """Say whether a lease or a mount uses it."""
        mounted = {digest for which in self.mounts for digest in self.digests_of(which)}
        return any(what.digest in lease for lease in self.leases.values()) or (
            what.kind in TREES and what.digest in mounted
        )

    def named(self, digest: Digest) -> bool:
        return any(digest in self.digests_of(which) for which in self.refs.values())

    def needed(self, what: Stored) -> bool:
        return self.used(what) or self.named(what.digest)

    def swept(self) -> None:
        self.here.update(self.aside)
        self.aside.clear()

    def collected(self) -> None:
        self.here = {what for what in self.here if self.needed(what)}
        self.suspended = {digest for digest in self.suspended if self.needed(Stored("blob", digest))}
        self.swept()

    def of_image(self, which: int) -> list[Stored]:
        return [Stored("manifest", IMAGES[which].digest), Stored("config", IMAGES[which].config_digest)]

    def has_stack(self, which: int) -> bool:
        return all(Stored("layer", DIGESTS[number]) in self.here for number in STACKS[which])

    # Those who use

    @rule(store=stores, number=layers)
    def fetch(self, store: int, number: int) -> None:
        publish(self.storages[store], LAYERS[number].blob, lambda tree: fill(tree, number), entries=FILES)
        if Stored("blob", DIGESTS[number]) not in self.here:  # or a sweep gave it back
            self.suspended.discard(DIGESTS[number])
        self.here |= {Stored("blob", DIGESTS[number]), Stored("layer", DIGESTS[number])}

    @rule(store=stores, number=layers)
    def extract(self, store: int, number: int) -> None:
        tar = self.place / f"{number}.tar"
        tar.write_bytes(LAYERS[number].blob)
        self.storages[store].extract_layer(DIGESTS[number], tar)
        self.here.add(Stored("layer", DIGESTS[number]))

    @rule(store=stores, number=layers)
    def break_off(self, store: int, number: int) -> None:
        if Stored("blob", DIGESTS[number]) not in self.here:
            with self.storages[store].stage_layer_download(
                DIGESTS[number], len(LAYERS[number].blob)
            ) as staged_:
                staged_.write(LAYERS[number].blob[staged_.offset : staged_.offset + 100])
            self.suspended.add(DIGESTS[number])

    @rule(store=stores, which=images)
    def cover(self, store: int, which: int) -> None:
        cover = Stored("cover", COVERS[which])
        try:
            self.storages[store].publish_cover([DIGESTS[number] for number in STACKS[which]])
        except NotInStore:
            assert cover not in self.here
            assert not self.has_stack(which)
        else:
            assert cover in self.here or self.has_stack(which)
            self.here.add(cover)

    @rule(store=stores, which=images, by_digest=st.booleans())
    def name(self, store: int, which: int, by_digest: bool) -> None:
        built, storage = IMAGES[which], self.storages[store]
        storage.save_manifest(built.manifest, built.digest)
        storage.save_config(built.config, built.config_digest)
        self.here.update(self.of_image(which))
        if by_digest:
            storage.refs.keep(REPOSITORY, built.digest)
        else:
            storage.refs.write(REPOSITORY.with_tag(str(which)), built.digest)
        self.refs[which, by_digest] = which

    @rule(store=stores, which=images, by_digest=st.booleans())
    def forget(self, store: int, which: int, by_digest: bool) -> None:
        known = self.refs.pop((which, by_digest), None) is not None
        assert self.storages[store].refs.remove(self.reference(which, by_digest)) == known

    def reference(self, which: int, by_digest: bool) -> ImageReference:
        return (
            REPOSITORY.with_digest(IMAGES[which].digest)
            if by_digest
            else REPOSITORY.with_tag(str(which)).reference
        )

    @rule(store=stores, number=layers)
    def lease_a_layer(self, store: int, number: int) -> None:
        self.storages[store].lease(
            f"layer-{number}", [DIGESTS[number]], until=datetime.now(UTC) + timedelta(1)
        )
        self.leases[f"layer-{number}"] = frozenset({DIGESTS[number]})

    @rule(store=stores, which=images)
    def lease_an_image(self, store: int, which: int) -> None:
        if set(self.of_image(which)) <= self.here:  # by its manifest, which leads to all
            self.storages[store].lease(f"image-{which}", [IMAGES[which].digest])
            self.leases[f"image-{which}"] = self.digests_of(which)

    @precondition(lambda self: self.leases)
    @rule(store=stores, data=st.data())
    def release(self, store: int, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.leases)))
        assert self.storages[store].leases.remove(name)
        del self.leases[name]

    @rule(which=images)
    def mount(self, which: int) -> None:
        if which not in self.mounts and self.has_stack(which) and Stored("cover", COVERS[which]) in self.here:
            point = self.place / f"mnt-{which}"
            point.mkdir(exist_ok=True)
            mount_stack(self.storages[0], which, point)
            self.mounts[which] = point

    @precondition(lambda self: self.mounts)
    @rule(data=st.data())
    def unmount(self, data: st.DataObject) -> None:
        unmount_stack(self.mounts.pop(data.draw(st.sampled_from(sorted(self.mounts)))))

    # Those who remove

    @rule(store=stores)
    def collect(self, store: int) -> None:
        collect_garbage(self.storages[store])
        self.collected()

    @rule(store=stores, which=images, by_digest=st.booleans())
    def remove(self, store: int, which: int, by_digest: bool) -> None:
        name, storage = self.reference(which, by_digest), self.storages[store]
        entry = storage.refs.read(name)
        assert (entry is not None) == ((which, by_digest) in self.refs)
        if entry is not None:
            remove_images(storage, {name: entry})
            del self.refs[which, by_digest]
            among = self.digests_of(which)
            self.here = {what for what in self.here if what.digest not in among or self.needed(what)}
            self.suspended -= {each for each in among if not self.needed(Stored("blob", each))}

    @rule(store=stores)
    def evict(self, store: int) -> None:
        Keeper(self.storages[store], Limits(max_size=Amount(1))).keep()
        self.collected()
        self.here = {what for what in self.here if what.kind in ("manifest", "config") or self.used(what)}

    @rule(store=stores)
    def sweep(self, store: int) -> None:
        self.storages[store].sweep()
        self.swept()

    @rule(store=stores, number=layers)
    def discard(self, store: int, number: int) -> None:
        layer = Stored("layer", DIGESTS[number])
        mounted = any(number in STACKS[which] for which in self.mounts)
        try:
            assert self.storages[store].discard_layer(DIGESTS[number]) == (layer in self.here)
        except StoreError:
            assert mounted
        else:
            assert not (mounted and layer in self.here)
            self.here.discard(layer)
            self.aside.pop(layer, None)  # its record went, too

    @rule(data=st.data(), at=st.sampled_from(["aside", "without its record", "removing"]))
    def die(self, data: st.DataObject, at: str) -> None:
        """Leave what a remover leaves that is killed in the middle; only what nobody needs gets there."""
        free = sorted((what for what in self.here if not self.needed(what)), key=repr)
        for what in data.draw(st.lists(st.sampled_from(free), max_size=4, unique=True)) if free else ():
            final = self.storages[0].stock.path(what)
            aside = staged(final.parent, final.name, "aside")
            final.rename(aside)
            self.here.remove(what)
            if at == "aside":
                self.aside[what] = aside
                continue
            if what.kind in TREES:
                final.with_name(f"{final.name}.json").unlink()
            elif at == "without its record":
                self.aside[what] = aside
            if at == "removing":
                aside.rename(aside.with_suffix(".removing"))

    @rule(store=stores)
    def make_durable(self, store: int) -> None:
        self.storages[store].make_durable()

    @rule(store=stores)
    def restart(self, store: int) -> None:
        self.storages[store].close()
        self.storages[store] = self.opened()

    @invariant()
    def agree(self) -> None:
        kinds: dict[StoredKind, list[Digest]] = {
            "blob": DIGESTS, "layer": DIGESTS, "cover": COVERS,
            "manifest": [built.digest for built in IMAGES],
            "config": [built.config_digest for built in IMAGES],
        }  # fmt: skip
        possible = {Stored(kind, digest) for kind, digests in kinds.items() for digest in digests}
        storage = self.storages[0]
        assert {what for what in possible if os.path.lexists(storage.stock.path(what))} == self.here
        for number, digest in enumerate(DIGESTS):
            for found in (each.open_layer(digest) for each in self.storages):
                assert (found is not None) == (Stored("layer", digest) in self.here)
                if found is not None:
                    assert sorted(os.listdir(found.path)) == names_of(number)
                    assert (found.path / names_of(number)[-1]).read_bytes() == content_of(number)
        for which, point in self.mounts.items():
            for number in STACKS[which]:
                assert (point / names_of(number)[0]).read_bytes() == content_of(number)
        staged_names = (StagedName.parse(os.path.basename(path)) for path in leftovers(self.place))
        partial = {name.stem for name in staged_names if name and name.kind == "downloading"}
        assert partial == {digest.name for digest in self.suspended}


@pytest.mark.needs_root
@pytest.mark.allow_warnings  # that an eviction cannot free what is in use
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("examples", "steps"), [(5, 20), pytest.param(40, 50, marks=pytest.mark.long)])
def test_uses_removals_and_deaths_agree_with_a_model(examples: int, steps: int) -> None:
    def run() -> None:
        private_mounts()  # else a namespace that another test makes has copies of ours, which are uses
        run_state_machine_as_test(
            StoreAgreesWithAModel,
            settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None),
        )

    apart(run)
