"""Keeps a store within its limits: garbage goes first, then what was not used for longest. Blocking."""

import logging
import os
import threading
import time
from collections import Counter
from pathlib import Path

from layerfs.catalog.inventory import take_inventory
from layerfs.errors import StoreError, StoreFull
from layerfs.gc.collect import Collector
from layerfs.gc.jobs import collect_garbage
from layerfs.gc.limits import Limits, Room
from layerfs.gc.objects import oldest_objects, remove_objects
from layerfs.gc.plan import Needed, plan_collection, plan_eviction, total
from layerfs.settings import Settings
from layerfs.store import ImageStorage

log = logging.getLogger(__name__)


class Keeper:
    """The limits of one store. Thread-safe: one look at a time."""

    def __init__(self, storage: ImageStorage, limits: Limits) -> None:
        self._storage = storage
        self._limits = limits
        self._looking = threading.Lock()
        self.freed = 0
        """Bytes that went, since this keeper was made."""
        self.size = 0
        """Bytes that the store takes, as of the last look; 0 where there are no limits to look for."""
        self.evicted: Counter[str] = Counter()
        """Things among it that images need, by kind."""
        self._last_freed = float("-inf")

    @property
    def limits(self) -> Limits:
        """What is kept to."""
        return self._limits

    def keep_to(self, settings: Settings) -> None:
        """Keep to what other *settings* say, from the next look on."""
        self._limits = Limits.of(settings)

    @property
    def is_limited(self) -> bool:
        """Whether there is anything to keep to."""
        return self._limits.max_size is not None or self._limits.min_free is not None

    @property
    def store(self) -> Path:
        """Where the store is."""
        return self._storage.images_dir

    def disk(self) -> tuple[int, int]:
        """Return the bytes of the filesystem of the store, and those that are free; 0 if nobody can say."""
        try:
            room = room_of(self._storage)
        except StoreError:
            return 0, 0
        return room.size, room.free

    def keep(self) -> int:
        """Have the store within its limits, as far as what may go suffices; return the bytes freed."""
        with self._looking:
            goal = self._excess()
            return self._free(goal) if goal > 0 else 0

    def make_room(self, began: float) -> bool:
        """Remove what can go for somebody whom the disk is full for; False if there is nothing.

        Garbage, and if there are limits, what was not used for longest as well. What went for others since
        the work *began*, by time.monotonic, counts: of two who fail together one finds nothing left.
        """
        with self._looking:
            wanted = room_of(self._storage).size // 20 if self.is_limited else 0
            return self._free(max(wanted, self._excess())) > 0 or self._last_freed >= began

    def require_room(self, what: str, size: int) -> None:
        """Raise StoreFull, with the numbers, if *size* bytes more do not fit even when all goes that may."""
        room = room_of(self._storage)
        most = None if self._limits.max_size is None else self._limits.max_size.of(room.size)
        if most is not None and size > most:
            raise StoreFull(
                f"{what}: {_shown(size)} in blobs alone (expected {_shown(most)}, max_size, at most)"
            )
        can_go = 0 if size <= room.free else self._can_go()
        if size > room.free + can_go:
            raise StoreFull(
                f"{what}: needs {_shown(size)} in blobs alone, and as much or more for what is extracted; "
                f"{self._storage.images_dir} has {_shown(room.free)}, and {_shown(can_go)} can go "
                "(expected enough); make room, or choose another --store"
            )

    def _can_go(self) -> int:
        counts = self._limits.is_pinned if self.is_limited else lambda _: True
        users = Collector(self._storage, counts=counts).users()
        things = take_inventory(self._storage).things
        return total(plan_collection(things, users, now=time.time()).going.values())

    def _excess(self) -> int:
        if not self.is_limited:  # then the size of the store need not be known
            return 0
        self.size = take_inventory(self._storage).total
        return self._limits.excess(self.size, room_of(self._storage))

    def _free(self, goal: int) -> int:
        """Remove garbage, then evict until *goal* bytes are free. Raises StoreError."""
        freed = collect_garbage(self._storage).freed
        if goal > freed:
            freed += self._evict(goal - freed)
        if goal > freed:
            log.warning(
                "%s: %d bytes more than its limits, and nothing else can go (all else is in use or pinned)",
                self._storage.images_dir,
                goal - freed,
            )
        self.freed += freed
        self.size = max(0, self.size - freed)
        if freed:
            self._last_freed = time.monotonic()
            log.info("%s: freed %d bytes", self._storage.images_dir, freed)
        return freed

    def _evict(self, goal: int) -> int:
        """Remove what was not used for longest though images need it; return the bytes. Raises StoreError."""
        storage = self._storage
        collector = Collector(storage, counts=self._limits.is_pinned)
        inventory, users = take_inventory(storage), collector.users()
        chosen = plan_eviction(inventory.things, users, goal, self._limits.order)
        done = collector.collect(chosen)
        self.evicted.update(what.kind for what in done.removed)
        tocs, _ = storage.lazy.skeletons.names()
        used = {toc for toc in tocs if users.blind or users.usage.uses(toc)}
        objects = oldest_objects(storage, inventory.objects, Needed(users).digests | used, goal - done.freed)
        removed = remove_objects(storage, objects)
        self.evicted["file"] += len(removed)
        return done.freed + total(removed.values())


def room_of(storage: ImageStorage) -> Room:
    """Return what the filesystem of a store has. Raises StoreError."""
    try:
        status = os.statvfs(storage.images_dir)
    except OSError as exc:
        raise StoreError(f"{storage.images_dir}: cannot be looked at: {exc.strerror}") from exc
    return Room(status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize)


def _shown(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
