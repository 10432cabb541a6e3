"""Who has given which bytes, should they turn out to be wrong. Pure.

Whoever hashes them does it later, in another process.
"""

from typing import Final

import msgspec

from layerfs.registry.calls import Content
from layerfs.registry.mirrors.endpoints import Endpoint

_MOST: Final = 1000
"""What was asked for longest ago is forgotten first."""


class Witnesses(msgspec.Struct):
    """The servers that gave some content, and those that gave other bytes for it."""

    _served: dict[Content, frozenset[Endpoint]] = msgspec.field(default_factory=dict)
    _refused: dict[Content, frozenset[Endpoint]] = msgspec.field(default_factory=dict)

    def served(self, content: Content, endpoint: Endpoint) -> None:
        """Take note that *endpoint* gives *content*."""
        _keep(self._served, content, self._served.get(content, frozenset()) | {endpoint})

    def trusted(self, content: Content | None, found: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """Return those of *found* that may be asked for it; all if none of them is left."""
        refused = self._refused.get(content, frozenset()) if content else frozenset()
        return tuple(one for one in found if one not in refused) or found

    def doubt(self, content: Content, found: tuple[Endpoint, ...]) -> tuple[frozenset[Endpoint], bool]:
        """Return who gave wrong bytes for it, and whether others of *found* are left; those are asked now."""
        served = self._served.pop(content, frozenset())
        refused = self._refused.pop(content, frozenset()) | served
        left = bool(served) and any(one not in refused for one in found)
        if left:
            _keep(self._refused, content, refused)
        return served, left


def _keep(
    known: dict[Content, frozenset[Endpoint]], content: Content, endpoints: frozenset[Endpoint]
) -> None:
    known.pop(content, None)
    known[content] = endpoints
    if len(known) > _MOST:
        del known[next(iter(known))]
