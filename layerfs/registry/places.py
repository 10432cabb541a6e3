"""Who may ask at the same time: so many exchanges with one site, however many names lead there.

A name costs nothing: hosts of one domain, ports, spellings. So what counts is the address that a connection
went to, which `layerfs.registry.transport` tells once it is made. Before that nobody knows the site of a
name, and such names share places of their own, as long as it takes to connect. Behind a proxy, which alone
knows addresses, each host counts as a site.
"""

from collections.abc import Collection
from typing import Final
from weakref import WeakValueDictionary

import trio

UNKNOWN: Final = ""
"""The site of hosts that were never connected to."""

CONNECTING: Final = 128
"""Places for exchanges with hosts whose site is not known, of each kind."""

REMEMBERED: Final = 4096
"""Hosts whose sites are remembered; the one that was learned first is forgotten first."""


class Crowded(Exception):
    """Others have all places of the site that a connection has led to: wait for one, and connect again."""


class Sites:
    """Where hosts are, as connections have shown lately."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._awaited: dict[str, set[trio.Event]] = {}

    def of(self, host: str) -> str:
        """Return the site of *host*, `UNKNOWN` before the first connection."""
        return self._known.get(host, UNKNOWN)

    def learn(self, host: str, site: str) -> None:
        """Take note that *host* is at *site* now."""
        self._known.pop(host, None)
        self._known[host] = site
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        for awaited in self._awaited.pop(host, ()):
            awaited.set()

    async def known(self, hosts: Collection[str]) -> str:
        """Return the site of one of *hosts*, as soon as there is a connection to any."""
        while not (found := [site for host in hosts if (site := self.of(host)) != UNKNOWN]):
            arrived = trio.Event()
            for host in hosts:
                self._awaited.setdefault(host, set()).add(arrived)
            await arrived.wait()
        return found[0]


class Places:
    """*most* places at each site, for exchanges of one kind."""

    def __init__(self, most: int, sites: Sites) -> None:
        self._most = most
        self._sites = sites
        self._of_sites: WeakValueDictionary[str, trio.Semaphore] = WeakValueDictionary()

    async def take(self, host: str) -> "Place":
        """Wait for a place where *host* is, as far as that is known."""
        site = self._sites.of(host)
        held = self.of(site)
        await held.acquire()
        return Place(self, site, held)

    def take_spare(self, host: str) -> "Place":
        """Take a place that is free now. Raises Crowded if none is."""
        site = self._sites.of(host)
        held = self.of(site)
        try:
            held.acquire_nowait()
        except trio.WouldBlock:
            raise Crowded(site) from None
        return Place(self, site, held)

    def of(self, site: str) -> trio.Semaphore:
        """Return the places of *site*; they are kept as long as somebody has or wants one."""
        found = self._of_sites.get(site)
        if found is None:
            found = trio.Semaphore(CONNECTING if site == UNKNOWN else self._most)
            self._of_sites[site] = found
        return found


class Place:
    """One exchange's place; it moves to the site that the connection leads to."""

    def __init__(self, places: Places, site: str, held: trio.Semaphore) -> None:
        self._places = places
        self._site = site
        self._held = held

    def move(self, site: str) -> None:
        """Be counted at *site*. Raises Crowded if there is no place; the old one stays held."""
        if site == self._site:
            return
        wanted = self._places.of(site)
        try:
            wanted.acquire_nowait()
        except trio.WouldBlock:
            raise Crowded(site) from None
        self.release()
        self._site, self._held = site, wanted

    def release(self) -> None:
        """Leave the place to the next one."""
        self._held.release()
