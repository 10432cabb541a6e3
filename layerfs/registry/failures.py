"""Turns what httpx raises into errors of layerfs, without secrets and with what to do next.

Beside `layerfs.registry.transport` and `reply` the only module that knows httpx.
"""

import os
import socket
import ssl
from typing import Final

from layerfs.errors import LayerfsError, RegistryError, RegistryMisbehaved, RegistryTimeout, Unreachable
from layerfs.registry.http import httpx
from layerfs.registry.problem import without_secrets
from layerfs.registry.redirects import Request
from layerfs.registry.weborigin import WebOrigin

_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
"""What OpenSSL calls an answer that is none of TLS."""

_AUTHORITY: Final = "put its authority into /etc/containers/certs.d/{}/ca.crt"
_REMEDIES: Final = {
    9: "check the clock",
    10: "check the clock, tell who runs {}",
    62: "check the name",
    64: "check the address",
}
"""By OpenSSL's code, X509_verify_cert_error_string(3): not yet valid, expired, another name or address."""


class _Hopeless(Unreachable):
    """No connection, and no use in trying again at once."""


def is_hopeless(error: LayerfsError) -> bool:
    """Say whether trying again at once would end the same way."""
    return isinstance(error, _Hopeless)


def translated(exc: Exception, request: Request, what: str) -> RegistryError:
    """Return our error for httpx's, to be raised from None: the text of theirs may quote the server."""
    origin = WebOrigin.of(request.url)
    cause = _cause(exc)
    reason = without_secrets(_reason(cause), request.secrets()) or type(cause).__name__
    if isinstance(cause, ssl.SSLCertVerificationError):
        said = without_secrets(cause.verify_message).rstrip(".")
        remedy = _REMEDIES.get(cause.verify_code, _AUTHORITY).format(origin.authority)
        return _Hopeless(
            f"{what}: the certificate of {origin} is not to be believed: {said}; {remedy}, or give "
            f"--insecure-registry {origin.authority}"
        )
    if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
        return Unreachable(
            f"{what}: {origin} does not answer with TLS (expected https); check the port, or give "
            f"--insecure-registry {origin.authority} if it speaks plain HTTP"
        )
    if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
        return _Hopeless(f"{what}: no host of the name {origin.host}; check the registry's name, and DNS")
    if isinstance(exc, httpx.ConnectTimeout):
        return Unreachable(f"{what}: no connection to {origin} in time; check network and firewall")
    if isinstance(exc, httpx.TimeoutException):
        return RegistryTimeout(f"{what}: {origin} sends nothing any more; try again later")
    if isinstance(exc, httpx.ConnectError | ssl.SSLError):
        return Unreachable(f"{what}: no connection to {origin}: {reason}; check name, port and network")
    if isinstance(exc, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return RegistryMisbehaved(f"{what}: unreadable answer of {origin}: {reason}")
    return Unreachable(f"{what}: connection to {origin} broke: {reason}")


def _cause(exc: BaseException) -> BaseException:
    """Return the innermost exception that says something: httpx's own often have no text."""
    found = exc
    cause: BaseException | None = exc
    while cause is not None:
        if str(cause):
            found = cause
        if isinstance(cause, BaseExceptionGroup):  # an address each
            cause = cause.exceptions[0]
        else:
            cause = cause.__cause__ or cause.__context__
    return found


def _reason(cause: BaseException) -> str:
    """Say in words what *cause* says, without the numbers and constants of C."""
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {(cause.reason or 'broken off').replace('_', ' ').lower()}"
    if isinstance(cause, OSError) and (cause.errno or 0) > 0:  # the text of some quotes addresses of Python
        return os.strerror(cause.errno or 0)
    return str(cause)
