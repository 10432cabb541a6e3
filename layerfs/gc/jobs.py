"""What is asked of a store: remove these images, collect the garbage, say what could go. Blocking."""

import time
from collections.abc import Mapping

import msgspec

from layerfs.catalog.inventory import Held, Inventory, take_inventory
from layerfs.gc.collect import Collector
from layerfs.gc.leftovers import Cleaner, Leftovers, suspended_of
from layerfs.gc.plan import Kept, Needed, Plan, Users, plan_collection, total
from layerfs.oci import Digest, ImageReference
from layerfs.store import ImageStorage, RefEntry
from layerfs.store.stock import Stored


class Survey(msgspec.Struct, frozen=True):
    """What is in a store, who needs it, and what a collection would take."""

    inventory: Inventory
    users: Users
    plan: Plan
    leftovers: Leftovers


class Outcome(msgspec.Struct):
    """What went, or would go, and what stays for whom."""

    removed: Mapping[Stored, Held]
    kept: list[Kept]
    leftovers: Leftovers = msgspec.field(default_factory=Leftovers)

    @property
    def freed(self) -> int:
        """Bytes of what was removed, leftovers aside."""
        return total(self.removed.values())


def survey(storage: ImageStorage, *, older_than: float = 0, force: bool = False) -> Survey:
    """Look at all of a store; what was used within *older_than* seconds is spared. Raises StoreError."""
    return _survey(storage, Collector(storage, force=force), older_than)[0]


def collect_garbage(
    storage: ImageStorage, *, older_than: float = 0, force: bool = False, dry_run: bool = False
) -> Outcome:
    """Remove what nothing needs, leftovers included. Raises StoreReadOnly, StoreError."""
    collector = Collector(storage, force=force)
    found, cleaner = _survey(storage, collector, older_than)
    if dry_run:
        return Outcome(found.plan.going, list(found.plan.staying), found.leftovers)
    done = collector.collect(found.plan.going)
    return Outcome(done.removed, [*found.plan.staying, *done.kept], cleaner.remove(found.leftovers))


def remove_images(
    storage: ImageStorage,
    chosen: Mapping[ImageReference, RefEntry],
    *,
    force: bool = False,
    dry_run: bool = False,
) -> Outcome:
    """Remove the refs *chosen*, and what only they needed. Raises StoreReadOnly, StoreError."""
    collector = Collector(storage, counts=lambda name: name not in chosen, force=force)
    among = frozenset[Digest]().union(*(collector.needs_of(entry.digest) for entry in chosen.values()))
    if not dry_run:
        for name in chosen:
            storage.refs.remove(name)
        collector = Collector(storage, force=force)  # whoever names one of them again keeps it
    inventory, users = take_inventory(storage), collector.users()
    plan = plan_collection(inventory.things, users, among=among, now=time.time())
    if dry_run:
        return Outcome(plan.going, list(plan.staying))
    done = collector.collect(plan.going)
    storage.discard_suspended(suspended_of(inventory, among - Needed(users).digests))
    return Outcome(done.removed, [*plan.staying, *done.kept])


def _survey(storage: ImageStorage, collector: Collector, older_than: float) -> tuple[Survey, Cleaner]:
    inventory, users, now = take_inventory(storage), collector.users(), time.time()
    plan = plan_collection(inventory.things, users, older_than=older_than, now=now)
    cleaner = Cleaner(storage, Needed(users).digests.__contains__, users.blind)
    leftovers = cleaner.find(inventory, older_than=older_than, now=now)
    return Survey(inventory, users, plan, leftovers), cleaner
