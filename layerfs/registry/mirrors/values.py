"""What configuration says of registries and of what stands before them. Values only.

The terms are those of the two formats: a *table* of registries.conf holds for the names below its *prefix*, a
*namespace* of hosts.toml for all of a registry. Both lead to locations or hosts, one *endpoint* each.
"""

from pathlib import Path
from typing import Literal

import msgspec

from layerfs.registry.weborigin import WebOrigin

PullFrom = Literal["all", "digest-only", "tag-only"]


class HostLink(msgspec.Struct, frozen=True):
    """How a host is connected to, where it has ways of its own."""

    authorities: tuple[Path, ...] = ()
    """Files with certificates that are believed beside the system's."""
    client: tuple[tuple[Path, Path | None], ...] = ()
    """Certificates of our own to be shown, each with its key; None for a key in the same file."""
    skip_verify: bool = False
    """Believe any certificate of this host; where it redirects to is no part of that."""
    connect_timeout: float | None = None
    """Seconds; None for that of all."""
    proxy: str | None = None
    """The URL of a proxy instead of those that the environment names."""

    def __repr__(self) -> str:  # a proxy's URL may hold a password
        return (
            f"HostLink(authorities={self.authorities}, client={self.client}, skip_verify={self.skip_verify})"
        )


class Location(msgspec.Struct, frozen=True):
    """Where the names below a prefix really are: a host, and what stands for the prefix there."""

    host: str
    """``host[:port]``; empty for the one that a reference names."""
    path: str
    insecure: bool = False
    pull_from: PullFrom = "all"
    namespace: str = ""
    """The registry that is named to it as ``ns``; empty for none."""
    place: str = ""
    """File and line."""


class Table(msgspec.Struct, frozen=True):
    """One ``[[registry]]`` of registries.conf."""

    prefix: str
    location: Location | None
    """None: where references say, as a wildcard may leave it."""
    mirrors: tuple[Location, ...] = ()
    insecure: bool = False
    blocked: bool = False
    place: str = ""

    def matches(self, name: str) -> bool:
        """Say whether the table holds for *name*, ``registry/path``."""
        if self.prefix.startswith("*."):  # any number of labels, of the host alone
            return name.partition("/")[0].partition(":")[0].endswith(self.prefix[1:])
        return f"{name}/".startswith(f"{self.prefix}/")


class HostEntry(msgspec.Struct, frozen=True):
    """One host of hosts.toml: a ``[host."URL"]``, or the ``server``."""

    origin: WebOrigin | None
    """None for the registry itself."""
    root: str = "/v2"
    """Where its API is."""
    pulls: bool = True
    resolves: bool = True
    """Trusted to say what a tag means."""
    headers: tuple[tuple[str, str], ...] = ()
    link: HostLink = HostLink()
    place: str = ""

    def __repr__(self) -> str:  # headers may hold a password
        return f"HostEntry({self.origin}{self.root}, pulls={self.pulls}, resolves={self.resolves})"


class Namespace(msgspec.Struct, frozen=True):
    """A directory with hosts.toml: the hosts of one registry in order, the server last."""

    name: str
    """As the directory is called: ``docker.io``, ``host_5000_``, ``host:5000``, ``_default``."""
    hosts: tuple[HostEntry, ...]
    place: str


class ShortNames(msgspec.Struct, frozen=True):
    """What registries.conf says of names without a registry."""

    aliases: dict[str, str] = {}
    search: tuple[str, ...] | None = None
    """The registries that other programs would try in turn; None where nothing is said."""
    place: str = ""


class Mirrors(msgspec.Struct, frozen=True):
    """Everything that is configured; empty without any file."""

    tables: tuple[Table, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    """The strongest first."""
    short_names: ShortNames = ShortNames()

    def table_for(self, name: str) -> Table | None:
        """Return the table with the longest prefix that *name*, ``registry/path``, begins with."""
        found = [table for table in self.tables if table.matches(name)]
        return max(found, key=lambda table: len(table.prefix), default=None)

    def namespace_for(self, registry: str) -> Namespace | None:
        """Return the directory for *registry*, else the one for all."""
        host, colon, port = registry.rpartition(":")
        names = (f"{host}_{port}_", registry) if colon and not port.endswith("]") else (registry,)
        for name in (*names, "_default"):
            for namespace in self.namespaces:
                if namespace.name == name:
                    return namespace
        return None
