"""What a store gives to others, and where: the table ``[serve]``, the options of ``layerfs serve``."""

from pathlib import Path
from typing import Annotated, Final, Literal, Protocol

import msgspec

from layerfs.errors import InvalidSettings
from layerfs.oci.reference import is_registry
from layerfs.settings.address import ADDRESS, Address
from layerfs.settings.kinds import FLAG, PATH, PATTERNS, ValueKind
from layerfs.settings.row import by, rows_of

Audience = Literal["off", "local", "all"]
"""Who may read metrics: nobody, processes of this machine, whoever reaches the address."""
_AUDIENCE: Final = ValueKind(toml=Audience, option=Audience)
_CONNECTIONS: Final = ValueKind(toml=Annotated[int, msgspec.Meta(ge=1)], option=int, least=1)


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a store is served to other nodes."""

    listen: Annotated[
        Address | None,
        by(
            ADDRESS,
            "HOST:PORT or unix:PATH where layerfs serve listens, 127.0.0.1:5000 by default; if it is set, a "
            "mount serves its store there, too.",
            help="Listen there (default: 127.0.0.1:5000); port 0 is any that is free.",
            key="serve.listen",
            flags="--listen",
            metavar="HOST:PORT",
        ),
    ] = None
    """None: a mount serves nobody."""
    repositories: Annotated[
        tuple[str, ...],
        by(
            PATTERNS,
            "Patterns of the only repositories that are served, as docker.io/library/*; all by default.",
            help="Serve only repositories like this, as 'docker.io/library/*'. May be repeated.",
            key="serve.repositories",
            flags="--repository",
            metavar="PATTERN",
        ),
    ] = ()
    fetch: Annotated[
        bool,
        by(
            FLAG,
            "Whether what others ask for and is not here is fetched; it has to be one of repositories.",
            help="Fetch what is asked for and not here; needs --repository.",
            key="serve.fetch",
            flags="--fetch/--no-fetch",
        ),
    ] = False
    tls_cert: Annotated[
        Path | None,
        by(
            PATH,
            "Certificate to be shown, in PEM, with those up to its authority; with it TLS is spoken.",
            help="Speak TLS and show this certificate (PEM, with its chain).",
            key="serve.tls_cert",
            example="/etc/layerfs/node.crt",
            flags="--tls-cert",
            metavar="FILE",
        ),
    ] = None
    tls_key: Annotated[
        Path | None,
        by(
            PATH,
            "The key of tls_cert, in PEM, without a password.",
            help="The key of the certificate.",
            key="serve.tls_key",
            example="/etc/layerfs/node.key",
            flags="--tls-key",
            metavar="FILE",
        ),
    ] = None
    max_connections: Annotated[
        int,
        by(
            _CONNECTIONS,
            "Connections at the same time, 512 by default; one address has an eighth of them.",
            help="Connections at a time (default: 512); one address has an eighth of them.",
            key="serve.max_connections",
            flags="--max-connections",
            metavar="N",
        ),
    ] = 512
    metrics: Annotated[
        Audience,
        by(
            _AUDIENCE,
            "Who may read at /metrics what the server did, and the mount that it is beside: off, nobody "
            "(default); local, processes of this machine unless a proxy passes others on; all, whoever "
            "reaches the address.",
            help="Give metrics at /metrics: off, local (to this machine) or all (off).",
            key="serve.metrics",
            flags="--metrics",
            metavar="TO",
        ),
    ] = "off"

    def require_sound(self, settings: "RegistryRows") -> None:
        """Raise InvalidSettings for what contradicts itself, or would have strangers reach too far."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidSettings("--tls-cert and --tls-key: one without the other (expected both, or none)")
        if not self.fetch:
            return
        if not self.repositories:
            raise InvalidSettings(
                "--fetch without --repository: strangers would have anything fetched (expected what they "
                "may, as --repository 'docker.io/library/*')"
            )
        if settings.offline:
            raise InvalidSettings("--fetch and --offline (expected one of the two)")
        self.registries(settings)

    def registries(self, settings: "RegistryRows") -> frozenset[str]:
        """Return which registries strangers may have asked: those said, else those that the patterns name.

        Raises InvalidSettings for a pattern that names none.
        """
        if settings.registries is not None:
            return settings.registries
        found = {pattern.partition("/")[0] for pattern in self.repositories}
        vague = sorted(name for name in found if not is_registry(name))
        if vague:
            raise InvalidSettings(
                f"--fetch and --repository {vague[0]!r}: names no registry, so that strangers could have any "
                "host asked (expected REGISTRY/PATTERN, or --registries HOST)"
            )
        return frozenset(found)


class RegistryRows(Protocol):
    """What `layerfs.settings.table.Settings` says of registries."""

    @property
    def offline(self) -> bool:
        """Whether none may be asked."""

    @property
    def registries(self) -> frozenset[str] | None:
        """The only ones that may be asked."""


SERVE_ROWS: Final = rows_of(ServeSettings)
"""By field of `ServeSettings`."""
