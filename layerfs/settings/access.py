"""What holds for one call alone: who asks registries, how they are believed, how long they are waited for.

These have options, as those of podman and skopeo, and no key in a file: a password does not belong there, and
what a file says of registries it says by name.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Final

from layerfs.discreet import Discreet
from layerfs.settings.kinds import COUNT, CREDENTIALS, DURATION, FLAG, PATH, UserPassword
from layerfs.settings.row import by, rows_of


class Access(Discreet, frozen=True, kw_only=True):
    """How one call talks to the registries that it names."""

    hidden: ClassVar[frozenset[str]] = frozenset({"creds"})

    creds: Annotated[
        UserPassword | None,
        by(
            CREDENTIALS,
            "Log in as this user for this call. All users can see a password that is said here; without one "
            "the terminal is asked.",
            flags="--creds",
            metavar="USER[:PASSWORD]",
        ),
    ] = None
    tls_verify: Annotated[
        bool | None,
        by(
            FLAG,
            "Require HTTPS and a certificate to believe; with =false neither, as --insecure-registry "
            "(default: as configured).",
            flags="--tls-verify/--no-tls-verify",
        ),
    ] = None
    """None: as configured for each registry."""
    cert_dir: Annotated[
        Path | None,
        by(
            PATH,
            "Certificates: authorities *.crt, and *.cert with *.key to be shown (default: those of "
            "/etc/containers/certs.d).",
            flags="--cert-dir",
            metavar="DIR",
        ),
    ] = None
    retry: Annotated[
        int | None,
        by(
            COUNT,
            "Ask so often again where that may help (default: 4, within a minute).",
            flags="--retry",
            metavar="N",
        ),
    ] = None
    timeout: Annotated[
        float | None,
        by(
            DURATION,
            "Give a registry up that sends nothing for so long, as 30s or 5m, retries included (default: 60s "
            "at a time).",
            flags="--timeout",
            metavar="DURATION",
        ),
    ] = None
    """Seconds."""


ACCESS_ROWS: Final = rows_of(Access)
"""By field of `Access`."""
