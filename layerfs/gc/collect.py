"""The going of things: looks who needs what, sets aside, looks again, deletes. Blocking.

Any number of collectors, daemons and commands may work on one store at once.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import msgspec

from layerfs.catalog.documents import held_document
from layerfs.catalog.inventory import Held
from layerfs.catalog.inventory import needs_of as _walk
from layerfs.gc.plan import Kept, Needed, Root, Users, total
from layerfs.oci import Digest, ImageReference, Manifest
from layerfs.store import ImageStorage
from layerfs.store.removing import BATCH
from layerfs.store.scratch import all_scratches
from layerfs.store.stock import Stored
from layerfs.store.usage import Usage


class Collected(msgspec.Struct):
    """What a collection did."""

    removed: dict[Stored, Held] = msgspec.field(default_factory=dict)
    kept: list[Kept] = msgspec.field(default_factory=list)

    @property
    def freed(self) -> int:
        """Bytes."""
        return total(self.removed.values())


class Collector:
    """Removes what nobody needs from one store.

    A ref needs its image if *counts* says that it counts: all do for a collection, those that are pinned for
    an eviction; with None none does, and none is read. With *force* a look at the mounts that may lack some
    is believed; what it shows as used stays.
    """

    def __init__(
        self,
        storage: ImageStorage,
        *,
        counts: Callable[[ImageReference], bool] | None = lambda _: True,
        force: bool = False,
    ) -> None:
        self._storage = storage
        self._counts = counts
        self._force = force
        self._needs: dict[Digest, frozenset[Digest]] = {}
        self._lacking: dict[Digest, set[Digest]] = {}
        """For each digest that was asked about the documents that were not here by then."""

    def users(self) -> Users:
        """Look who needs what right now. Raises StoreError, also for a lease that cannot be read."""
        storage = self._storage
        counts = self._counts
        roots = [
            Root(str(name), self.needs_of(entry.digest))
            for name, entry in (storage.refs.all() if counts else ())
            if counts and counts(name)
        ]
        for name, lease in storage.leases.holding():
            found = frozenset[Digest]().union(*map(self.needs_of, lease.needed()))
            roots.append(Root(f"lease {name}", found, leased=True))
        usage = storage.usage()
        roots += self._sources(usage)
        return Users(tuple(roots), usage, "" if self._force else storage.blind(usage))

    def _sources(self, usage: Usage) -> Iterator[Root]:
        """Yield the lazy overlays in use: without documents nobody fetches what of an image is not here."""
        for scratch in all_scratches(self._storage.images_dir):
            image = scratch.image() if scratch.path.name.encode() in usage.scratches else None
            if image is not None:
                document = held_document(self._storage, image[1])
                config = {document.config.digest} if isinstance(document, Manifest) else set()
                name = f"the lazy overlay at {scratch.place}"
                yield Root(name, frozenset({image[1], *config}), leased=True)

    def collect(self, going: Mapping[Stored, Held]) -> Collected:
        """Remove *going*, but for what somebody needs by then.

        Raises StoreReadOnly, StoreError; what was removed until then stays removed.
        """
        for what in going:  # while the documents are here: they may be set aside when somebody names them
            if what.kind == "manifest":
                self.needs_of(what.digest)
        done = Collected()
        for batch in _batches(going):
            removal = self._storage.remover.remove(batch, self._needed_now)
            done.removed |= {what: going[what] for what in removal.removed}
            done.kept += [Kept(what, going[what], (reason,)) for what, reason in removal.kept]
        return done

    def _needed_now(self) -> Callable[[Stored], str]:
        needed = Needed(self.users())
        return lambda what: ", ".join(needed.reasons(what))

    def needs_of(self, digest: Digest) -> frozenset[Digest]:
        """Return what *digest* needs by all documents that were here whenever it was asked about.

        Documents do not change, but are set aside and come: another platform of an index, for instance.
        """
        known = self._needs.get(digest, frozenset())
        lacking = self._lacking.get(digest)
        if lacking is None or any(map(self._storage.has_manifest, lacking)):
            lacking = self._lacking[digest] = set[Digest]()
            known = self._needs[digest] = known | _walk(self._storage, digest, lacking)
        return known


def _batches(going: Mapping[Stored, Held]) -> Iterator[list[Stored]]:
    rest = iter(going)
    while batch := list(islice(rest, BATCH)):
        yield batch
