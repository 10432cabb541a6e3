"""Origins of URLs, and URLs fit to be shown. Pure; imports no HTTP library.

An origin is what secrets belong to: nothing that was meant for one is ever sent to another
(distribution-spec, "Authorization ... MUST NOT be sent to a different host").
"""

from typing import Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from layerfs.errors import RegistryMisbehaved

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class WebOrigin(msgspec.Struct, frozen=True):
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


def is_loopback(host: str) -> bool:
    """Say whether *host* can only be this machine: localhost, 127.0.0.0/8, ::1."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    from ipaddress import ip_address  # a mount that asks nobody has no use for it

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
