"""What can be asked of a registry, by which URLs of which host, with TLS or without. Pure.

`layerfs.registry.mirrors.endpoints` says which servers are asked besides the registry itself. A caller says
what it asks for, as a value; only the host that is asked makes a URL of that.
"""

from collections.abc import Callable
from urllib.parse import quote

import msgspec

from layerfs.oci import Digest, Repository
from layerfs.oci.reference import DOCKER_HUB, DOCKER_HUB_HOST
from layerfs.registry.mirrors.values import HostLink
from layerfs.registry.traffic import HostKind
from layerfs.registry.weborigin import WebOrigin, is_loopback


class Greeting(msgspec.Struct, frozen=True):
    """Whether a registry lets us in (distribution-spec, end-1)."""

    registry: str


class ManifestOf(msgspec.Struct, frozen=True):
    """A manifest or index, by the name of a tag or by digest (distribution-spec, end-3)."""

    repository: Repository
    reference: str | Digest


class BlobOf(msgspec.Struct, frozen=True):
    """A layer or a config (distribution-spec, end-2)."""

    repository: Repository
    digest: Digest


class TagsOf(msgspec.Struct, frozen=True):
    """A page of the list of tags (distribution-spec, end-8)."""

    repository: Repository
    query: str = ""
    """Which page, as the page before it says; empty for the first."""


class UploadsOf(msgspec.Struct, frozen=True):
    """Where the upload of a blob begins (distribution-spec, end-4a and end-11)."""

    repository: Repository
    digest: Digest
    source: Repository | None = None
    """A repository of the same registry that may have the blob: then no bytes need be sent."""


Target = Greeting | ManifestOf | BlobOf | TagsOf | UploadsOf


class Host(msgspec.Struct, frozen=True):
    """One server that answers for a registry: the registry itself, or a mirror of it."""

    registry: str
    """The name in references: ``docker.io``, ``localhost:5000``, whoever is asked."""
    origin: WebOrigin
    insecure: bool
    """The user allows plain HTTP and certificates that do not verify, here and where it redirects to."""
    name: str = ""
    """Whose logins are sent, and what messages call it."""
    root: str = "/v2"
    """Where its API is."""
    taken: str = ""
    """What *put* stands for there, at the beginning of a repository's path."""
    put: str = ""
    namespace: str = ""
    """The registry that is named to it (distribution-spec, "Registry Proxying"); empty for none."""
    headers: tuple[tuple[str, str], ...] = ()
    """To be sent to this origin, and to no other."""
    link: HostLink = HostLink()
    mirror: bool = False
    """Whether it stands before the registry: what was said for this call is not for it."""
    forwards: bool = False
    """Whether the registry's own login may go through it."""

    def __post_init__(self) -> None:
        if not self.name:
            msgspec.structs.force_setattr(self, "name", self.registry)

    def __repr__(self) -> str:  # headers may hold a password
        return f"Host({self.name}, {self.origin}{self.root})"

    @property
    def stands_for(self) -> str:
        """The registry whose logins are used."""
        return self.registry if self.forwards else self.name

    def path_of(self, repository: Repository) -> str:
        """Return the path that *repository* has here; empty if none is left."""
        rest = repository.path
        if self.taken:
            rest = rest.removeprefix(self.taken).lstrip("/")
        path = "/".join(filter(None, (self.put, rest)))
        return f"library/{path}" if self.name == DOCKER_HUB and path and "/" not in path else path

    @property
    def kind(self) -> HostKind:
        """As whose its bytes count."""
        return "mirror" if self.mirror else "upstream"

    def url(self, target: Target) -> str:
        """Return where this host has *target*."""
        url = f"{self.origin}{self.root}/{_path(target, self.path_of)}"
        if not self.namespace or isinstance(target, Greeting):
            return url
        return f"{url}{'&' if '?' in url else '?'}ns={quote(self.namespace, safe='')}"


def _path(target: Target, path_of: Callable[[Repository], str]) -> str:
    match target:
        case Greeting():
            return ""
        case ManifestOf(repository, reference):
            return f"{path_of(repository)}/manifests/{reference}"
        case BlobOf(repository, digest):
            return f"{path_of(repository)}/blobs/{digest}"
        case UploadsOf(repository, digest, source):
            mount = f"?mount={digest}&from={path_of(source)}" if source else ""
            return f"{path_of(repository)}/blobs/uploads/{mount}"
        case TagsOf(repository, query):
            return f"{path_of(repository)}/tags/list" + (f"?{query}" if query else "")


def hosts(
    registry: str, insecure_registries: frozenset[str], tls_verify: bool | None = None
) -> tuple[Host, ...]:
    """Return the hosts to ask for what *registry* has, in this order; `asks_next` says when to go on.

    HTTPS only, except for loopback (HTTP first, a TLS registry there answers the HTTP request with
    an error at once) and for what the user called insecure (HTTPS first, in case it has it). With
    *tls_verify* there are no exceptions; if it is False, all are insecure.
    """
    name = DOCKER_HUB_HOST if registry == DOCKER_HUB else registry
    insecure = not tls_verify and (
        tls_verify is False or registry in insecure_registries or name in insecure_registries
    )
    if not tls_verify and is_loopback(WebOrigin.of(f"https://{name}").host):
        schemes: tuple[str, ...] = ("http", "https")
    else:
        schemes = ("https", "http") if insecure else ("https",)
    return tuple(Host(registry, WebOrigin.of(f"{scheme}://{name}"), insecure) for scheme in schemes)


def asks_next(host: Host, status: int | None) -> bool:
    """Say whether the next host is to be asked, after this one gave *status*, None for no answer."""
    # 400 is what servers with TLS answer to a request without.
    return status is None or (status == 400 and host.origin.scheme == "http")
