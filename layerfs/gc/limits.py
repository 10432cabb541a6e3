"""How much of the disk a store may take, and what has to go for that. Pure."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final, Self

import msgspec

from layerfs.oci import ImageReference
from layerfs.oci.reference import DOCKER_HUB, familiar
from layerfs.settings import Settings
from layerfs.settings.kinds import Amount, Order

_LOW: Final = 0.9
"""A store too large becomes as small as this part of its limit: the next layer does not evict again."""


class Room(msgspec.Struct, frozen=True):
    """What a filesystem has, in bytes."""

    size: int
    free: int
    """What an ordinary user may write."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the user said of the size of a store."""

    max_size: Amount | None = None
    min_free: Amount | None = None
    pins: tuple[str, ...] = ()
    """Patterns of references that are never evicted."""
    order: Order = "layers"

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return what *settings* say of it."""
        return cls(
            max_size=settings.max_size, min_free=settings.min_free, pins=settings.pin, order=settings.evict
        )

    def excess(self, total: int, room: Room) -> int:
        """Return the bytes that have to go from a store of *total* bytes; 0 if it is within its limits."""
        most = None if self.max_size is None else self.max_size.of(room.size)
        least = 0 if self.min_free is None else self.min_free.of(room.size)
        too_large = total - int(most * _LOW) if most is not None and total > most else 0
        too_full = int(least / _LOW) - room.free if room.free < least else 0
        return max(too_large, too_full, 0)

    def is_pinned(self, name: ImageReference) -> bool:
        """Say whether a pattern names an image: all of ``registry/repository:tag``, or of its short forms."""
        return any(fnmatchcase(text, pattern) for pattern in self.pins for text in _spelled(name))


def _spelled(name: ImageReference) -> Sequence[str]:
    whole = str(name)
    return (whole, whole.removeprefix(f"{DOCKER_HUB}/"), familiar(whole), str(name.repository))
