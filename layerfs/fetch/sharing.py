"""Whose share something counts in: not that of a name, for names are free, but of the site where it is.

`LocatingOrigin` learns where registries are while they are asked, `WaitShares` counts who waits for them.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import trio

from layerfs.errors import LayerfsError, WaitRefused
from layerfs.fetch.operations import Locate
from layerfs.fetch.origin import Listener, Operation, Origin, ignore
from layerfs.fetch.tasks import background

A = TypeVar("A")

UNKNOWN: Final = ""
"""The site of all registries of which no connection has shown where they are."""

LASTS: Final = 60.0
"""Seconds after which it is asked anew where a registry is."""

REMEMBERED: Final = 4096
"""Registries whose sites are remembered; the one that was learned first is forgotten first."""


class LocatingOrigin:
    """An origin that learns where registries are, while *origin* is asked something of them."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._known: dict[str, tuple[str, float]] = {}
        """The site of a registry, and when it was learned."""
        self._asking: set[str] = set()

    def of(self, registry: str) -> str:
        """Return the site of *registry*, as far as it is known."""
        return self._known.get(registry, (UNKNOWN, 0.0))[0]

    async def ask(self, operation: Operation[A], files: tuple[int, ...] = (), told: Listener = ignore) -> A:
        """Return the origin's answer to *operation*."""
        registry = operation.registry
        known = self._known.get(registry)
        if registry in self._asking or (known and known[1] + LASTS > trio.current_time()):
            return await self._origin.ask(operation, files, told)
        self._asking.add(registry)
        try:
            async with background() as nursery:
                nursery.start_soon(self._locate, registry)
                return await self._origin.ask(operation, files, told)
        finally:
            self._asking.remove(registry)

    async def _locate(self, registry: str) -> None:
        try:
            site = await self._origin.ask(Locate(registry))
        except LayerfsError:  # the operation beside this says what is wrong
            return
        self._known.pop(registry, None)
        self._known[registry] = site, trio.current_time()
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]


class WaitShares:
    """*places* for waiting callers. No site has more of them than are free, so the next one finds some.

    One that takes all that it can get has half, two have a third each.
    """

    def __init__(self, places: int, site: Callable[[str], str]) -> None:
        self._places = places
        self._site = site
        self._held: Counter[str] = Counter()
        """By registry: its site may be learned while its callers wait."""
        self._all = 0

    def __len__(self) -> int:
        """Return how many callers wait."""
        return self._all

    @contextmanager
    def of(self, registry: str) -> Iterator[None]:
        """Let the block wait for *registry*. Raises WaitRefused at once if too many do."""
        free = self._places - self._all
        if self._all >= free and (held := self._where(registry)) >= free:
            raise WaitRefused(f"{registry}: {held} callers wait for what is there ({free} places are left)")
        self._held[registry] += 1
        self._all += 1
        try:
            yield
        finally:
            self._all -= 1
            self._held[registry] -= 1
            if not self._held[registry]:
                del self._held[registry]

    def _where(self, registry: str) -> int:
        """Return how many wait for the site of *registry*."""
        site = self._site(registry)
        return sum(number for name, number in self._held.items() if self._site(name) == site)
