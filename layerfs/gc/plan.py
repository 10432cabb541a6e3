"""Which things of a store may go, decided from what is there and who needs it. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Final

import msgspec

from layerfs.catalog.inventory import Held
from layerfs.oci import Digest
from layerfs.settings.kinds import Order
from layerfs.store.stock import Stored, StoredKind
from layerfs.store.usage import Usage

_MOUNTED: Final[frozenset[StoredKind]] = frozenset({"layer", "cover", "skeleton", "toc"})
"""What a mount can use; a TOC says where in its blob the files of a skeleton are."""
_NAMES_MAX: Final = 3
"""Users of one thing that are named."""
_REMOVED_FIRST: Final[Sequence[StoredKind]] = (
    "cover", "layer", "skeleton", "blob", "toc", "config", "manifest",
)  # fmt: skip


class Root(msgspec.Struct, frozen=True):
    """Somebody who needs things."""

    name: str
    """As messages call him."""
    digests: frozenset[Digest]
    leased: bool = False
    """Whether a program uses them, and not only a name leads to them."""


class Kept(msgspec.Struct, frozen=True):
    """A thing that stays, and for whom."""

    what: Stored
    held: Held
    reasons: tuple[str, ...]
    used: bool = True
    """Whether it is in use, or may be; and not only needed by a name."""


class Plan(msgspec.Struct, frozen=True):
    """What goes and what stays of the things that were asked about."""

    going: Mapping[Stored, Held]
    """In the order of removal: documents last, so that what is left of an image can be named until then."""
    staying: tuple[Kept, ...]


class Users(msgspec.Struct, frozen=True):
    """Who needs what, at one moment."""

    roots: tuple[Root, ...]
    usage: Usage
    blind: str = ""
    """Why there may be mounts that `usage` lacks; then whatever a mount can use is taken for used."""

    def mounted(self, what: Stored) -> bool:
        """Say whether a mount uses a thing."""
        return what.kind in _MOUNTED and self.usage.uses(what.digest)


def plan_collection(
    things: Mapping[Stored, Held],
    users: Users,
    *,
    among: Collection[Digest] | None = None,
    older_than: float = 0,
    now: float,
) -> Plan:
    """Say which of *things* nobody needs; only of *among* if that is given.

    What was used within the *older_than* seconds before *now* stays.
    """
    needed = Needed(users)
    going: list[tuple[Stored, Held]] = []
    staying: list[Kept] = []
    for what, held in things.items():
        if among is not None and what.digest not in among:
            continue
        reasons = needed.reasons(what)
        lately = older_than > 0 and now - held.used_at < older_than
        if reasons or lately:
            staying.append(Kept(what, held, reasons or ("used lately",), needed.is_used(what) or not reasons))
        else:
            going.append((what, held))
    going.sort(key=lambda one: _REMOVED_FIRST.index(one[0].kind))
    return Plan(dict(going), tuple(staying))


class Needed:
    """Answers who needs a thing for many of them: most are needed by nobody, or by few."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self._names: dict[Digest, list[str]] = {}
        for root in users.roots:
            for digest in root.digests:
                self._names.setdefault(digest, []).append(root.name)
        self.digests: Set[Digest] = self._names.keys()
        """What some root needs."""
        self._leased = frozenset[Digest]().union(*(root.digests for root in users.roots if root.leased))

    def is_used(self, what: Stored) -> bool:
        """Say whether a mount or a lease uses a thing, or a mount might that cannot be seen."""
        return what.digest in self._leased or self._may_be_mounted(what)

    def reasons(self, what: Stored) -> tuple[str, ...]:
        """Say who needs a thing; nobody if it is empty."""
        users, named = self._users, list(self._names.get(what.digest, ()))
        if what.kind in _MOUNTED:
            use = users.usage.use_of(what.digest)
            if use is not None:
                named.insert(0, str(use))
            elif users.blind and not named:
                named.append(f"maybe a mount: {users.blind}")
        if len(named) > _NAMES_MAX:
            named[_NAMES_MAX:] = [f"{len(named) - _NAMES_MAX} more"]
        return tuple(named)

    def _may_be_mounted(self, what: Stored) -> bool:
        users = self._users
        blind = bool(users.blind) and what.kind in _MOUNTED and what.digest not in self.digests
        return blind or users.mounted(what)


def plan_eviction(
    things: Mapping[Stored, Held], protected: Users, goal: int, order: Order
) -> Mapping[Stored, Held]:
    """Choose what goes though images need it, least recently used first, until *goal* bytes are free.

    Documents stay: so what went can still be named, listed and fetched again. What *protected* needs stays,
    too.
    """
    needed = Needed(protected)
    first: tuple[StoredKind, ...] = ("layer", "cover") if order == "layers" else ("blob",)
    candidates = sorted(
        ((what, held) for what, held in things.items() if what.kind in ("layer", "cover", "blob")),
        key=lambda one: (one[0].kind not in first, one[1].used_at, one[0].digest.hex),
    )
    chosen: dict[Stored, Held] = {}
    for what, held in candidates:
        if goal <= 0:
            break
        if not needed.reasons(what):
            chosen[what] = held
            goal -= held.size
    return chosen


def total(held: Iterable[Held]) -> int:
    """Return the bytes of several things."""
    return sum(one.size for one in held)
