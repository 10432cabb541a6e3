"""Who is asked for what a registry has, in which order, and why. Pure.

The strongest rule first: the table of registries.conf that the repository begins with; the registry's
directory of hosts.toml; ``_default``; the registry itself. One of them holds, they are not mixed. What is
pushed, and a login that is tried, goes to the registry that the user names.
"""

from typing import Final, Literal

import msgspec

from layerfs.errors import Denied, InvalidSettings
from layerfs.oci import Digest, Repository
from layerfs.oci.reference import DOCKER_HUB, DOCKER_HUB_HOST
from layerfs.registry.hosts import Greeting, Host, ManifestOf, TagsOf, Target, UploadsOf, hosts
from layerfs.registry.mirrors.values import HostEntry, Location, Mirrors, Namespace, Table

Kind = Literal["mirror", "registry"]
_UNCONFIGURED: Final = "nothing is configured for it"


class Policy(msgspec.Struct, frozen=True):
    """What of the settings says who is asked."""

    mirrors: Mirrors = Mirrors()
    insecure: frozenset[str] = frozenset()
    tls_verify: bool | None = None
    mirror_only: bool = False
    """Fetch from no registry itself."""
    forward_credentials: frozenset[str] = frozenset()
    """Mirrors (``host[:port]``) that may be sent the login of the registry they stand for."""


class Endpoint(msgspec.Struct, frozen=True):
    """One server that may have what is asked for."""

    hosts: tuple[Host, ...]
    """Never empty; the first that answers counts: it may have TLS or not."""
    kind: Kind
    why: str
    """File and line that name it."""
    pulls: bool = True
    resolves: bool = True

    @property
    def name(self) -> str:
        """``host[:port]`` as the user wrote it."""
        return self.hosts[0].name


def endpoints(policy: Policy, target: Target, *, writes: bool = False) -> tuple[Endpoint, ...]:
    """Return whom to ask for *target*, in this order; never empty.

    Raises Denied if nobody may be asked, InvalidSettings for a name that cannot be rewritten.
    """
    if isinstance(target, Greeting):
        return (_itself(policy, target.registry, _UNCONFIGURED),)
    repository = target.repository
    found = candidates(policy, repository)
    if writes or isinstance(target, UploadsOf):
        if (table := policy.mirrors.table_for(str(repository))) and table.blocked:
            raise Denied(f"{repository}: blocked by {table.place}")
        return (_itself(policy, repository.registry, found[-1].why),)
    if isinstance(target, TagsOf) and not policy.mirror_only:  # a mirror lists what it happens to have
        return tuple(one for one in found if one.kind == "registry") or found[-1:]
    by_tag = isinstance(target, TagsOf) or (
        isinstance(target, ManifestOf) and not isinstance(target.reference, Digest)
    )
    usable = tuple(one for one in found if (one.resolves if by_tag else one.pulls))
    if not usable:
        task = "say what a tag means" if by_tag else "give layers"
        raise Denied(
            f"{repository}: none of {', '.join(one.name for one in found)} may {task} ({found[0].why})"
        )
    return usable


def candidates(policy: Policy, repository: Repository) -> tuple[Endpoint, ...]:
    """Return all that may be asked for anything of *repository*. Raises Denied, InvalidSettings."""
    table = policy.mirrors.table_for(str(repository))
    namespace = None if table else policy.mirrors.namespace_for(repository.registry)
    if table is not None:
        found = _of_table(policy, table, repository)
    elif namespace is not None:
        found = _of_namespace(policy, namespace, repository.registry)
    else:
        found = (_itself(policy, repository.registry, _UNCONFIGURED),)
    believed = found if not policy.tls_verify else tuple(one for one in found if _has_tls(one))
    if not believed:
        raise Denied(f"{repository}: {found[0].name} has no TLS, which is required ({found[0].why})")
    if not policy.mirror_only:
        return believed
    mirrors = tuple(one for one in believed if one.kind == "mirror")
    if not mirrors:
        raise Denied(
            f"{repository}: mirror_only forbids to ask {repository.registry} itself, and no mirror of it is "
            "configured (expected one in registries.conf or hosts.toml)"
        )
    return mirrors


def possible_hosts(policy: Policy, registry: str) -> frozenset[str]:
    """Return the names of all hosts that may be asked for anything of *registry*."""
    found = {registry}
    for table in policy.mirrors.tables:
        if table.matches(registry) or table.prefix.startswith(f"{registry}/"):
            found |= {one.host or registry for one in (*table.mirrors, table.location) if one}
    names = {host.origin.host for name in found for host in hosts(name, frozenset())}
    if (namespace := policy.mirrors.namespace_for(registry)) is not None:
        names |= {entry.origin.host for entry in namespace.hosts if entry.origin}
    return frozenset(names)


def _itself(policy: Policy, registry: str, why: str) -> Endpoint:
    """Return the registry as its name says where it is, with what is configured for that host."""
    table = policy.mirrors.table_for(registry)
    insecure = policy.insecure | ({registry} if table and table.insecure else frozenset())
    found = hosts(registry, insecure, policy.tls_verify)
    namespace = policy.mirrors.namespace_for(registry)
    if table is None and namespace is not None and namespace.hosts[-1].origin is None:
        server = namespace.hosts[-1]
        found = tuple(msgspec.structs.replace(one, headers=server.headers, link=server.link) for one in found)
    return Endpoint(found, "registry", why)


def _of_table(policy: Policy, table: Table, repository: Repository) -> tuple[Endpoint, ...]:
    found = [_at(policy, one, table, repository, "mirror") for one in table.mirrors]
    if table.blocked:  # its location: as for podman, mirrors stand for what may not be asked itself
        if not found:
            raise Denied(f"{repository}: blocked by {table.place}")
        return tuple(found)
    place = table.location or Location("", "", table.insecure, place=table.place)
    return (*found, _at(policy, place, table, repository, "registry"))


def _at(policy: Policy, location: Location, table: Table, repository: Repository, kind: Kind) -> Endpoint:
    name = location.host or repository.registry
    insecure = policy.insecure | ({name} if location.insecure else frozenset())
    taken = "" if table.prefix.startswith("*.") else table.prefix.partition("/")[2]
    found = tuple(
        msgspec.structs.replace(
            one,
            registry=repository.registry,
            name=name,
            taken=taken if location.host else "",
            put=location.path,
            namespace=location.namespace,
            mirror=kind == "mirror",
            forwards=kind == "mirror" and name in policy.forward_credentials,
        )
        for one in hosts(name, insecure, policy.tls_verify)
    )
    if not found[0].path_of(repository):
        raise InvalidSettings(
            f"{location.place}: {name} leaves no name for {repository} (expected host/repository)"
        )
    return Endpoint(
        found,
        kind,
        location.place,
        pulls=location.pull_from != "tag-only",
        resolves=location.pull_from != "digest-only",
    )


def _of_namespace(policy: Policy, namespace: Namespace, registry: str) -> tuple[Endpoint, ...]:
    return tuple(
        Endpoint(
            _hosts_of(policy, entry, registry),
            "registry" if _is_itself(entry, registry) else "mirror",
            entry.place,
            pulls=entry.pulls,
            resolves=entry.resolves,
        )
        for entry in namespace.hosts
    )


def _hosts_of(policy: Policy, entry: HostEntry, registry: str) -> tuple[Host, ...]:
    origin = entry.origin
    if origin is None:
        found = hosts(registry, policy.insecure, policy.tls_verify)
        return tuple(msgspec.structs.replace(one, headers=entry.headers, link=entry.link) for one in found)
    itself = _is_itself(entry, registry)
    api, _, put = entry.root.partition("/v2/")
    return (
        Host(
            registry,
            origin,
            policy.tls_verify is False or origin.authority in policy.insecure,
            name=registry if itself else origin.authority,
            root=f"{api}/v2" if put else entry.root,
            put=put,
            # containerd, core/remotes/docker: isProxy
            namespace="" if itself else registry,
            headers=entry.headers,
            link=entry.link,
            mirror=not itself,
            forwards=not itself and origin.authority in policy.forward_credentials,
        ),
    )


def _is_itself(entry: HostEntry, registry: str) -> bool:
    wire = DOCKER_HUB_HOST if registry == DOCKER_HUB else registry
    return entry.origin is None or entry.origin.authority in (registry, wire)


def _has_tls(endpoint: Endpoint) -> bool:
    return all(host.origin.scheme == "https" for host in endpoint.hosts)
