"""Whom to believe in TLS: the system's authorities, those of one registry, or anyone. Blocking.

Sources: containers-certs.d(5). ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` work as for all of OpenSSL.
"""

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from layerfs.errors import InvalidSettings
from layerfs.registry.mirrors.values import HostLink
from layerfs.registry.weborigin import WebOrigin

_PLAIN: Final = HostLink()


def certificate_dir(origin: WebOrigin, certs_dirs: Iterable[Path]) -> Path | None:
    """Return the first directory with certificates for *origin*: ``host[:port]``, as in references."""
    for parent in certs_dirs:
        for name in dict.fromkeys((origin.authority, f"{origin.host}:{origin.port}")):
            if (parent / name).is_dir():
                return parent / name
    return None


def plain_context() -> ssl.SSLContext:
    """Return a context that trusts nobody, for origins without TLS: making it reads no files."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def context(
    directory: Path | None, link: HostLink = _PLAIN, *, verify: bool, own: bool = True
) -> ssl.SSLContext:
    """Return a context with the system's authorities, those of *directory* and *link*, and its *own* ones.

    Raises InvalidSettings for a certificate that cannot be read, or one without its key.
    """
    made = ssl.create_default_context()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    for path in _listed(directory):
        with _readable(path):
            _add(made, path, own=own)
    for path in link.authorities:
        with _readable(path):
            made.load_verify_locations(path)
    for path, key in link.client:
        with _readable(path):
            made.load_cert_chain(path, key)
    return made


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Have what is wrong with a file said as an error of the settings."""
    try:
        yield
    except ssl.SSLError as exc:  # its text names places in the source of Python
        reason = (exc.reason or "unknown").replace("_", " ").lower()
        raise InvalidSettings(f"{path}: not a readable certificate: {reason} (expected PEM)") from exc
    except OSError as exc:
        raise InvalidSettings(f"{path}: not a readable certificate: {exc.strerror}") from exc


def _listed(directory: Path | None) -> list[Path]:
    try:
        return sorted(directory.iterdir()) if directory else []
    except OSError as exc:
        raise InvalidSettings(
            f"{directory}: cannot be listed: {exc.strerror} (expected certificates)"
        ) from exc


def _add(made: ssl.SSLContext, path: Path, *, own: bool) -> None:
    if path.suffix == ".crt":
        made.load_verify_locations(path)
    elif not own:
        return
    elif path.suffix == ".cert":
        key = path.with_suffix(".key")
        if not key.exists():
            raise InvalidSettings(f"{path}: {key.name} is missing beside it")
        made.load_cert_chain(path, key)
    elif path.suffix == ".key" and not path.with_suffix(".cert").exists():
        raise InvalidSettings(f"{path}: {path.stem}.cert is missing beside it")
