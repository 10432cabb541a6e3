"""Who may go and who stays: decided from what is there."""

from collections.abc import Mapping

import pytest

from layerfs.catalog.inventory import Held
from layerfs.gc.limits import Limits, Room
from layerfs.gc.plan import Plan, Root, Users, plan_collection, plan_eviction
from layerfs.oci import Digest, ImageReference
from layerfs.settings.kinds import Amount
from layerfs.store.stock import Stored, StoredKind
from layerfs.store.usage import MountUse, Usage

A, B, C = (Digest.of(name) for name in (b"a", b"b", b"c"))
NOW = 1000.0


def stock(*things: tuple[StoredKind, Digest, int, float]) -> Mapping[Stored, Held]:
    """Return things with their sizes and last uses."""
    return {Stored(kind, digest): Held(size, used_at) for kind, digest, size, used_at in things}


def names(plan: Plan) -> list[tuple[StoredKind, Digest]]:
    """Return what goes, in order."""
    return [(what.kind, what.digest) for what in plan.going]


EVERYTHING = stock(
    ("manifest", A, 1, 0), ("blob", A, 1, 0), ("layer", A, 1, 0), ("blob", B, 1, 0), ("layer", B, 1, 990)
)  # fmt: skip


def test_what_no_root_needs_goes_documents_last() -> None:
    plan = plan_collection(EVERYTHING, Users((), Usage()), now=NOW)
    assert names(plan) == [("layer", A), ("layer", B), ("blob", A), ("blob", B), ("manifest", A)]
    assert plan.staying == ()


def test_what_a_root_needs_stays_and_is_said_for_whom() -> None:
    roots = tuple(Root(f"r{number}", frozenset({A})) for number in range(5))
    plan = plan_collection(EVERYTHING, Users(roots, Usage()), now=NOW)
    assert names(plan) == [("layer", B), ("blob", B)]
    assert {kept.reasons for kept in plan.staying} == {("r0", "r1", "r2", "2 more")}
    assert not any(kept.used for kept in plan.staying)


class Asked(frozenset[Digest]):
    """Counts how often it is asked for a digest."""

    times = 0

    def __contains__(self, digest: object) -> bool:
        """Count."""
        Asked.times += 1
        return super().__contains__(digest)


def test_a_thing_is_not_looked_for_in_every_root() -> None:
    roots = tuple(Root(f"r{number}", Asked({Digest.of(b"%d" % number)})) for number in range(300))
    things = stock(*(("layer", Digest.of(b"%d" % number), 1, 0) for number in range(300)))
    plan = plan_collection(things, Users(roots, Usage()), now=NOW)
    assert [kept.reasons for kept in plan.staying] == [(f"r{number}",) for number in range(300)]
    assert Asked.times <= 600  # 90,000 if it were


def test_a_mount_keeps_layers_and_not_blobs() -> None:
    usage = Usage({B: MountUse(b"/mnt/x\n", 7)})
    plan = plan_collection(EVERYTHING, Users((), usage), now=NOW)
    assert names(plan) == [("layer", A), ("blob", A), ("blob", B), ("manifest", A)]
    [kept] = plan.staying
    assert kept.used
    assert kept.reasons[0].startswith("mount /mnt/x")
    assert "\n" not in kept.reasons[0]


def test_who_cannot_see_all_mounts_keeps_what_one_could_use() -> None:
    plan = plan_collection(EVERYTHING, Users((), Usage(), "hidden"), now=NOW)
    assert names(plan) == [("blob", A), ("blob", B), ("manifest", A)]
    assert {kept.reasons for kept in plan.staying} == {("maybe a mount: hidden",)}


def test_only_what_is_asked_about_goes_and_what_was_used_lately_stays() -> None:
    plan = plan_collection(EVERYTHING, Users((), Usage()), among={B}, older_than=60, now=NOW)
    assert names(plan) == [("blob", B)]
    assert [(kept.what.kind, kept.reasons) for kept in plan.staying] == [("layer", ("used lately",))]


HELD = stock(
    ("layer", A, 30, 5), ("blob", A, 10, 1), ("layer", B, 30, 3), ("blob", B, 10, 2), ("manifest", A, 1, 0)
)  # fmt: skip


@pytest.mark.parametrize(
    ("goal", "order", "chosen"),
    [
        (1, "layers", [("layer", B)]),
        (31, "layers", [("layer", B), ("layer", A)]),
        (61, "layers", [("layer", B), ("layer", A), ("blob", A)]),
        (1, "blobs", [("blob", A)]),
        (21, "blobs", [("blob", A), ("blob", B), ("layer", B)]),
        (1000, "blobs", [("blob", A), ("blob", B), ("layer", B), ("layer", A)]),
        (0, "layers", []),
    ],
)
def test_the_least_recently_used_goes_first_and_documents_never(
    goal: int, order: str, chosen: list[tuple[str, Digest]]
) -> None:
    found = plan_eviction(HELD, Users((), Usage()), goal, order)  # type: ignore[arg-type]  # of the table
    assert [(what.kind, what.digest) for what in found] == chosen


def test_what_is_pinned_leased_or_mounted_is_not_evicted() -> None:
    users = Users((Root("lease x", frozenset({A}), leased=True),), Usage({B: MountUse(b"/m", 1)}))
    assert list(plan_eviction(HELD, users, 1000, "layers")) == [Stored("blob", B)]


@pytest.mark.parametrize(
    ("limits", "total", "room", "excess"),
    [
        (Limits(), 10**12, Room(10**12, 0), 0),
        (Limits(max_size=Amount(1000)), 1000, Room(10**6, 10**6), 0),
        (Limits(max_size=Amount(1000)), 1001, Room(10**6, 10**6), 101),
        (Limits(max_size=Amount(percent=50)), 600, Room(1000, 400), 150),
        (Limits(min_free=Amount(90)), 600, Room(1000, 90), 0),
        (Limits(min_free=Amount(90)), 600, Room(1000, 80), 20),
        (Limits(max_size=Amount(590), min_free=Amount(90)), 600, Room(1000, 80), 69),
    ],
)
def test_too_large_goes_down_to_the_low_mark(limits: Limits, total: int, room: Room, excess: int) -> None:
    assert limits.excess(total, room) == excess


@pytest.mark.parametrize(
    ("pattern", "pinned"),
    [
        ("docker.io/library/python:3.12", True), ("python:3.12", True), ("python", False),
        ("*/python:*", True), ("docker.io/library/python", True),
        ("library/*", True), ("quay.io/*", False), ("python:3.1", False),
    ],
)  # fmt: skip
def test_a_pattern_pins_by_any_spelling(pattern: str, pinned: bool) -> None:
    assert Limits(pins=(pattern,)).is_pinned(ImageReference.parse("python:3.12")) == pinned
