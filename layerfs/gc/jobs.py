"""What is asked of a store: remove these images, collect the garbage, say what could go. Blocking."""

import time
from collections.abc import Mapping

import msgspec

from layerfs.catalog.inventory import Held, take_inventory
from layerfs.gc.collect import Collector
from layerfs.gc.leftovers import Cleaner, Leftovers, suspended_of
from layerfs.gc.objects import only_named_by, remove_objects, unnamed_objects
from layerfs.gc.plan import Kept, Needed, Plan, plan_collection, total
from layerfs.gc.survey import Survey
from layerfs.oci import Digest, ImageReference
from layerfs.store import ImageStorage, RefEntry
from layerfs.store.stock import Stored


class Outcome(msgspec.Struct):
    """What went, or would go, and what stays for whom."""

    removed: Mapping[Stored, Held]
    kept: list[Kept]
    leftovers: Leftovers = msgspec.field(default_factory=Leftovers)
    objects: Mapping[str, Held] = msgspec.field(default_factory=dict)
    """Files of lazy layers among it, by their ids."""

    @property
    def freed(self) -> int:
        """Bytes of what was removed, leftovers aside."""
        return total(self.removed.values()) + total(self.objects.values())


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
        return Outcome(found.plan.going, list(found.plan.staying), found.leftovers, found.objects)
    done = collector.collect(found.plan.going)
    objects = remove_objects(storage, unnamed_objects(storage, found.objects))
    kept = [*found.plan.staying, *done.kept]
    return Outcome(done.removed, kept, cleaner.remove(found.leftovers), objects)


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
    objects = only_named_by(storage, inventory.objects, _tocs(plan))
    if dry_run:
        return Outcome(plan.going, list(plan.staying), objects=objects)
    done = collector.collect(plan.going)
    storage.discard_suspended(suspended_of(inventory, among - Needed(users).digests))
    objects = remove_objects(storage, unnamed_objects(storage, objects))
    return Outcome(done.removed, [*plan.staying, *done.kept], objects=objects)


def _survey(storage: ImageStorage, collector: Collector, older_than: float) -> tuple[Survey, Cleaner]:
    inventory, users, now = take_inventory(storage), collector.users(), time.time()
    plan = plan_collection(inventory.things, users, older_than=older_than, now=now)
    cleaner = Cleaner(storage, Needed(users).digests.__contains__, users.blind)
    leftovers = cleaner.find(inventory, older_than=older_than, now=now)
    old = {id_: held for id_, held in inventory.objects.items() if now - held.used_at >= older_than}
    objects = unnamed_objects(storage, old, _tocs(plan))
    return Survey(inventory, users, plan, leftovers, objects), cleaner


def _tocs(plan: Plan) -> set[Digest]:
    """Return the TOCs whose skeletons will go."""
    return {what.digest for what in plan.going if what.kind == "skeleton"}
