"""What came over the network, and from whom: counted by who downloads, shown by somebody else. No I/O."""

from typing import Annotated, Final, Literal, Self

import msgspec

HostKind = Literal["upstream", "mirror", "foreign"]
"""Who sent bytes: the registry that a name says, with the servers that it leads to; another one that stands
for it; a server that ``urls`` of a foreign layer names."""
HOST_KINDS: Final[tuple[HostKind, ...]] = ("upstream", "mirror", "foreign")

_Count = Annotated[int, msgspec.Meta(ge=0)]


class Traffic(msgspec.Struct):
    """Bytes of bodies by who sent them, useless ones included, and how often a mirror had none."""

    received: dict[HostKind, _Count] = msgspec.field(default_factory=dict)
    fallbacks: _Count = 0
    """How often the next server was asked because a mirror gave nothing."""

    def came(self, kind: HostKind, size: int) -> None:
        """Count bytes of a body."""
        if size:
            self.received[kind] = self.received.get(kind, 0) + size

    def fell_back(self) -> None:
        """Count a mirror that gave nothing, so that the next server is asked."""
        self.fallbacks += 1

    def add(self, more: Self) -> None:
        """Count what somebody else has counted."""
        for kind, size in more.received.items():
            self.came(kind, size)
        self.fallbacks += more.fallbacks

    def taken(self) -> Self:
        """Return what was counted since the last time, and count from nothing again."""
        found = type(self)(self.received, self.fallbacks)
        self.received, self.fallbacks = {}, 0
        return found

    def __bool__(self) -> bool:
        """Say whether anything was counted."""
        return bool(self.received or self.fallbacks)
