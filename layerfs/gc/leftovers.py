"""Leftovers that a collection takes along: what nobody works on, resumes, mounts or serves. Blocking."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from layerfs.catalog.inventory import Held, Inventory, stored_in
from layerfs.errors import InvalidDigest, StoreError, StoreReadOnly
from layerfs.oci import Digest
from layerfs.store import ImageStorage
from layerfs.store.layout import StagedName
from layerfs.store.parts import blob_of
from layerfs.store.removing import remove_directory
from layerfs.store.scratch import all_scratches
from layerfs.store.sweep import SUSPENDED_SECONDS


class Leftovers(msgspec.Struct):
    """What a collection takes along, by kind."""

    leftovers: dict[Path, Held] = msgspec.field(default_factory=dict)
    """Downloads that nobody will resume, and what killed processes left."""
    scratches: dict[Path, Held] = msgspec.field(default_factory=dict)
    """What was written to overlays that are mounted no more."""
    local: dict[Path, Held] = msgspec.field(default_factory=dict)
    """Stores of local sources that nobody serves or uses."""
    kept: dict[Path, str] = msgspec.field(default_factory=dict)
    """What of them must stay, and why."""

    def rows(self) -> Mapping[str, dict[Path, Held]]:
        """Return them by the name of their kind."""
        return {"leftovers": self.leftovers, "scratches": self.scratches, "local": self.local}


class Cleaner:
    """Removes leftovers of one store.

    *needed* says whether something of the store needs a digest; then its download may be resumed. *blind* is
    why mounts may be unseen: then what one might use stays.
    """

    def __init__(self, storage: ImageStorage, needed: Callable[[Digest], bool], blind: str) -> None:
        self._storage = storage
        self._needed = needed
        self._blind = blind

    def find(self, inventory: Inventory, *, older_than: float, now: float) -> Leftovers:
        """Say what of *inventory* would go; what was used within *older_than* seconds before *now* stays."""
        found = Leftovers()
        for path, held in inventory.leftovers.items():
            if self._is_left(path, now - held.used_at) and not self._is_held(path):
                found.leftovers[path] = held
        stocks = (inventory.scratches, inventory.bundles)
        old = {path for stock in stocks for path, held in stock.items() if now - held.used_at >= older_than}
        for scratch in all_scratches(self._storage.images_dir):
            if scratch.path in old and self._may_go(scratch.path, scratch.user(), found):
                found.scratches[scratch.path] = inventory.scratches[scratch.path]
        for path, held in inventory.bundles.items():
            if path in old and self._may_go(path, _user_of_bundle(path, maker=self._storage.maker), found):
                found.local[path] = held
        return found

    def remove(self, found: Leftovers) -> Leftovers:
        """Remove what was *found*, as far as it is still idle; return what is gone. Raises StoreError."""
        storage = self._storage
        storage.discard_suspended(found.leftovers)
        storage.sweep()
        storage.leases.sweep()
        for scratch in all_scratches(storage.images_dir):
            if scratch.path in found.scratches:
                self._try(scratch.path, scratch.remove, found)
        for path in found.local:
            self._try(
                path,
                partial(remove_directory, path, storage.locks, partial(_user_of_bundle, maker=storage.maker)),
                found,
            )
        return Leftovers(_gone(found.leftovers), _gone(found.scratches), _gone(found.local), found.kept)

    def _is_left(self, path: Path, age: float) -> bool:
        digest = _download_of(path)
        return digest is None or age > SUSPENDED_SECONDS or not self._needed(digest)

    def _is_held(self, path: Path) -> bool:
        try:
            return self._storage.locks.is_held(path)
        except StoreReadOnly:  # nobody here could remove it
            return True

    def _may_go(self, path: Path, user: str, found: Leftovers) -> bool:
        reason = user or (f"maybe a mount: {self._blind}" if self._blind else "")
        if reason:
            found.kept[path] = reason
        return not reason

    @staticmethod
    def _try(path: Path, remove: Callable[[], object], found: Leftovers) -> None:
        try:
            remove()
        except StoreError as exc:
            found.kept[path] = str(exc)


def _user_of_bundle(path: Path, *, maker: int | None) -> str:
    """Say who uses the store of a local source; empty if nobody does."""
    try:
        bundle = ImageStorage(path, maker=maker)
        if bundle.locks.is_served():
            return "a mount serves it"
        usage = bundle.usage()
        uses = (usage.use_of(what.digest) for _, _, what in stored_in(bundle) if what is not None)
        found = [str(use) for use in uses if use is not None]
        return ", ".join(found[:1] or [f"lease {name}" for name, _ in bundle.leases.holding()])
    except StoreError as exc:
        return str(exc)


def _gone(held: dict[Path, Held]) -> dict[Path, Held]:
    return {path: one for path, one in held.items() if not os.path.lexists(path)}


def suspended_of(inventory: Inventory, digests: Collection[Digest]) -> Iterator[Path]:
    """Yield the suspended downloads of *digests*; some may be in somebody's hands."""
    return (path for path in inventory.leftovers if _download_of(path) in digests)


def _download_of(path: Path) -> Digest | None:
    """Return what the staged *path* is a download of; None for anything else."""
    name = StagedName.parse(path.name)
    with suppress(InvalidDigest):
        if name is not None and name.kind in ("downloading", "part"):
            return Digest.from_name(blob_of(name.stem))
    return None
