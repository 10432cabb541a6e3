"""What the user may decide about registries. Values only."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import msgspec

from layerfs.discreet import Discreet
from layerfs.registry.credentials import Credential
from layerfs.registry.mirrors.endpoints import Policy
from layerfs.registry.mirrors.values import Mirrors
from layerfs.registry.retry import RetryPolicy

USER_AGENT = "layerfs/0.1.0"


class RegistrySettings(Discreet, frozen=True):
    """Settings of a `RegistryClient`, here or in the downloader process, which they reach whole.

    Times are in seconds.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"environment"})

    allowed: frozenset[str] | None = None
    """The registries that may be asked at all; None for any.

    For mounts that other users may read: a path below ``images/`` names any host, and walking into it must
    not lend the daemon's network, or its logins, to whoever does.
    """
    insecure: frozenset[str] = frozenset()
    """Registries (``host[:port]``) that may be plain HTTP or have a certificate that does not verify."""
    mirrors: Mirrors = msgspec.field(default_factory=Mirrors)
    """What podman's and containerd's files say."""
    mirror_only: bool = False
    """Fetch from mirrors alone, from no registry itself."""
    forward_credentials: frozenset[str] = frozenset()
    """Mirrors (``host[:port]``) that may be sent the login of the registry that they stand for."""
    offline: bool = False
    """Ask no registry at all: raise Offline instead."""
    tls_verify: bool | None = None
    """True: HTTPS and a certificate to believe from every registry, False from none, whatever *insecure* says
    of it."""
    login: Credential | None = None
    """The login for all registries, instead of what is found at any place."""
    use_credentials: bool = True
    """False: always anonymous."""
    authfile: Path | None = None
    """Read credentials from this file alone, instead of the places that podman and docker use."""
    certs_dirs: tuple[Path, ...] = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
    """Below them ``host[:port]/`` with ``*.crt`` (authorities), ``*.cert`` and ``*.key`` (a client's own)."""
    cert_dir: Path | None = None
    """A directory of such files for all registries, instead of *certs_dirs*."""
    foreign_urls: bool = True
    """Fetch non-distributable layers from the ``urls`` of their descriptors."""
    reachable_networks: frozenset[str] = frozenset()
    """Networks (``10.0.0.0/8``) that are not public, into which what strangers name may lead."""
    connect_timeout: float = 15.0
    idle_timeout: float = 60.0
    """For the next bytes of an answer."""
    least_throughput: int = 1024
    """Bytes a second that a body has to bring, on average over each ``idle_timeout``."""
    document_timeout: float = 120.0
    """For a whole manifest, config, token or error."""
    commit_timeout: float = 600.0
    """For the answer to what was uploaded."""
    helper_timeout: float = 30.0
    """For a credential helper."""
    requests_per_site: int = 8
    """For all registries at one address."""
    downloads_per_site: int = 6
    """Counted apart, so that a lookup never waits for a download to end."""
    max_bandwidth: int | None = None
    """Bytes a second that are taken in at most, of all registries; None for no limit."""
    retry: RetryPolicy = msgspec.field(default_factory=RetryPolicy)
    user_agent: str = USER_AGENT
    environment: Mapping[str, str] | None = None
    """Proxies, places of credentials; None for those of the process. Not shown: it may hold secrets."""

    @property
    def policy(self) -> Policy:
        """What of it says who is asked."""
        return Policy(
            mirrors=self.mirrors,
            insecure=self.insecure,
            tls_verify=self.tls_verify,
            mirror_only=self.mirror_only,
            forward_credentials=self.forward_credentials,
        )

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment that holds."""
        return os.environ if self.environment is None else self.environment
