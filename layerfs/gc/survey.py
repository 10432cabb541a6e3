"""What a store takes, as sums: how much of it images share, use, and do not need any more."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from layerfs.catalog.inventory import Held, Inventory
from layerfs.gc.leftovers import Leftovers
from layerfs.gc.plan import Plan, Users
from layerfs.oci import Digest, ImageReference
from layerfs.store.stock import Stored, StoredKind


class Total(msgspec.Struct, frozen=True):
    """How many things, and what they take of the disk: bytes, as du(1) counts them."""

    count: int = 0
    size: int = 0
    shared: int = 0
    """Bytes of what more than one image needs."""
    in_use: int = 0
    """Bytes of what a mount or a lease needs."""
    reclaimable: int = 0
    """Bytes of what a collection would remove."""


class ImageSize(msgspec.Struct, frozen=True):
    """What one image takes of the disk, in bytes."""

    reference: ImageReference
    blobs: int
    extracted: int
    shared: int
    """Bytes of what another image needs, too."""
    own: int
    """The rest."""


class Survey(msgspec.Struct, frozen=True):
    """What is in a store, who needs it, and what a collection would take."""

    inventory: Inventory
    users: Users
    plan: Plan
    leftovers: Leftovers
    objects: Mapping[str, Held]
    """Files of lazy layers that would go, too."""

    def totals(self) -> dict[str, Total]:
        """Return a sum for each kind of what is in a store, and that of all: ``total``."""
        found = self.inventory
        gone = self.leftovers.rows()
        sums = {name: self._things(kinds) for name, kinds in _KINDS.items()}
        for name, stock, going in (
            ("objects", found.objects.values(), self.objects.values()),
            ("leftovers", found.leftovers.values(), gone["leftovers"].values()),
            ("scratches", found.scratches.values(), gone["scratches"].values()),
            ("local", found.bundles.values(), gone["local"].values()),
        ):
            sums[name] = _total(stock, reclaimable=going)
        sums["other"] = Total(size=found.other)
        columns = Total.__struct_fields__
        return sums | {
            "total": Total(*(sum(getattr(one, column) for one in sums.values()) for column in columns))
        }

    def images(self) -> list[ImageSize]:
        """Return what each image takes."""
        return [self._image(reference, needed) for reference, needed in self.inventory.images.items()]

    def _image(self, reference: ImageReference, needed: frozenset[Digest]) -> ImageSize:
        found = self.inventory
        things = {what: held.size for what, held in found.things.items() if what.digest in needed}
        shared = sum(size for what, size in things.items() if found.users[what.digest] > 1)
        return ImageSize(
            reference=reference,
            blobs=sum(size for what, size in things.items() if what.kind == "blob"),
            extracted=sum(size for what, size in things.items() if what.kind == "layer"),
            shared=shared,
            own=sum(things.values()) - shared,
        )

    def _things(self, kinds: tuple[StoredKind, ...]) -> Total:
        found, users = self.inventory, self.users
        leased = frozenset[Digest]().union(*(root.digests for root in users.roots if root.leased))
        things = {what: held for what, held in found.things.items() if what.kind in kinds}

        def of(chosen: Callable[[Stored], bool]) -> list[Held]:
            return [held for what, held in things.items() if chosen(what)]

        return _total(
            things.values(),
            shared=of(lambda what: found.users[what.digest] > 1),
            in_use=of(lambda what: what.digest in leased or users.mounted(what)),
            reclaimable=of(self.plan.going.__contains__),
        )


_KINDS: Final[Mapping[str, tuple[StoredKind, ...]]] = {
    "blobs": ("blob",),
    "extracted": ("layer",),
    "covers": ("cover",),
    "skeletons": ("skeleton", "toc"),
    "documents": ("manifest", "config"),
}


def _total(
    stock: Iterable[Held],
    shared: Iterable[Held] = (),
    in_use: Iterable[Held] = (),
    reclaimable: Iterable[Held] = (),
) -> Total:
    held = list(stock)
    return Total(len(held), *(sum(one.size for one in part) for part in (held, shared, in_use, reclaimable)))
