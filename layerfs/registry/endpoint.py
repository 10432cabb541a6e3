"""Where a registry is: names become URLs, URLs become origins. Pure; imports no HTTP library.

An origin is what secrets belong to: nothing that was meant for one is ever sent to another
(distribution-spec, "Authorization ... MUST NOT be sent to a different host").
"""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from layerfs.errors import RegistryMisbehaved

_HUB: Final = "docker.io"
_HUB_HOST: Final = "registry-1.docker.io"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class WebOrigin:
    """Scheme, host and port: who sees what is sent there."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "WebOrigin":
        """Read an absolute http or https URL. Raises RegistryMisbehaved; the text holds no secret."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, None
        if parts is None or not host or parts.scheme not in _DEFAULT_PORTS:
            raise RegistryMisbehaved(f"not an http(s) URL: {redact(url)!r} (expected scheme://host/path)")
        return cls(parts.scheme, host, _DEFAULT_PORTS[parts.scheme] if port is None else port)

    @property
    def is_loopback(self) -> bool:
        """Whether it can only be on this machine."""
        return is_loopback(self.host)

    @property
    def authority(self) -> str:
        """``host[:port]``, the port only where the scheme does not imply it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to reach a registry."""

    registry: str
    """Its name in references: ``docker.io``, ``localhost:5000``."""
    origin: WebOrigin
    insecure: bool
    """The user allows plain HTTP and certificates that do not verify, here and where it redirects to."""

    def url(self, path: str) -> str:
        """Return the URL of *path*, which starts with ``/v2/``."""
        return f"{self.origin}{path}"


def manifest_path(repository: str, reference: str) -> str:
    """Return the path of a manifest by tag or digest (distribution-spec, end-3)."""
    return f"/v2/{repository}/manifests/{reference}"


def blob_path(repository: str, digest: str) -> str:
    """Return the path of a blob (distribution-spec, end-2)."""
    return f"/v2/{repository}/blobs/{digest}"


def tags_path(repository: str) -> str:
    """Return the path of the tag list (distribution-spec, end-8)."""
    return f"/v2/{repository}/tags/list"


def endpoints(registry: str, insecure_registries: frozenset[str]) -> tuple[Endpoint, ...]:
    """Return the ways to reach *registry*, to be tried in this order until one connects.

    HTTPS only, except for loopback (HTTP first, a TLS registry there answers the HTTP request with
    an error at once) and for what the user called insecure (HTTPS first, in case it has it).
    """
    host = _HUB_HOST if registry == _HUB else registry
    insecure = registry in insecure_registries or host in insecure_registries
    if is_loopback(WebOrigin.of(f"https://{host}").host):
        schemes: tuple[str, ...] = ("http", "https")
    else:
        schemes = ("https", "http") if insecure else ("https",)
    return tuple(Endpoint(registry, WebOrigin.of(f"{scheme}://{host}"), insecure) for scheme in schemes)


def asks_next(endpoint: Endpoint, status: int | None) -> bool:
    """Say whether the next endpoint is to be asked, after this one gave *status*, None for no answer."""
    # 400 is what servers with TLS answer to a request without.
    return status is None or (status == 400 and endpoint.origin.scheme == "http")


def is_loopback(host: str) -> bool:
    """Say whether *host* can only be this machine: localhost, 127.0.0.0/8, ::1."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def redact(url: str) -> str:
    """Return *url* fit for a log: no user, no password, no value of the query, no fragment.

    Presigned URLs carry their authorisation in the query; ``ns`` names a registry and may stay.
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(unreadable URL)"
    shown = "&".join(_redacted_pair(pair) for pair in parts.query.split("&")) if parts.query else ""
    return urlunsplit((parts.scheme, host, parts.path[:300], shown, ""))


def _redacted_pair(pair: str) -> str:
    key, equals, _ = pair.partition("=")
    if not equals:  # a lone value could be the secret itself
        return "..."
    return pair if key == "ns" else f"{key[:40]}=..."
