"""The token dance, as decisions (distribution, docs "Token authentication"). Pure: no I/O, no clock.

`plan` says what a challenge asks for, `token_request` what to send to the token server, and
`parse_token` what it answered. `layerfs.registry.auth` drives them.
"""

import math
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

import msgspec

from layerfs.errors import Denied, RegistryMisbehaved
from layerfs.foreign import decode_json
from layerfs.registry.challenge import Challenge
from layerfs.registry.credentials import Credential
from layerfs.registry.hosts import Greeting, Host
from layerfs.registry.redirects import Request
from layerfs.registry.weborigin import WebOrigin

MAX_TOKEN_BODY: Final = 1 << 20
"""Bytes; as c/image (internal/iolimits)."""

_DEFAULT_LIFE: Final = 60.0
_CLIENT_ID: Final = "layerfs"


class BasicPlan(msgspec.Struct, frozen=True):
    """Send user and password with each request."""


class TokenPlan(msgspec.Struct, frozen=True):
    """Ask a token server, then send its token with each request."""

    realm: str
    """Absolute URL of the token server."""
    service: str


Plan = BasicPlan | TokenPlan


class RepositoryRights(msgspec.Struct, frozen=True):
    """What a call needs."""

    repository: str = ""
    """The path of the repository; empty for no rights to any."""
    actions: str = "pull"
    """As token servers name them, with a comma between: ``pull,push``."""
    source: str = ""
    """Another repository that is read from; empty for none."""

    @property
    def scopes(self) -> tuple[str, ...]:
        """The rights as token servers name them (distribution, docs "Token scope")."""
        wanted = {self.repository: self.actions, self.source: "pull"}
        return tuple(f"repository:{path}:{actions}" for path, actions in wanted.items() if path)


def plan(challenges: tuple[Challenge, ...], host: Host) -> Plan | None:
    """Choose among what the registry offers: a token, else basic; None if it offers neither.

    Raises RegistryMisbehaved for a token server without TLS where the registry itself has it.
    """
    for challenge in challenges:
        if challenge.scheme == "bearer" and challenge.get("realm"):
            realm = _absolute(challenge.get("realm"), host)
            return TokenPlan(realm, challenge.get("service"))
    if any(challenge.scheme == "basic" for challenge in challenges):
        return BasicPlan()
    return None


def _absolute(realm: str, host: Host) -> str:
    try:
        url = urljoin(host.url(Greeting(host.registry)), realm.strip())  # some registries send only a path
    except ValueError:
        url = ""
    origin = WebOrigin.of(url)
    # Through a mirror goes a login of a registry that has TLS, whatever the mirror has.
    bare = origin.scheme == "http" and not (origin.is_loopback if host.forwards else host.insecure)
    if bare and (host.forwards or host.origin.scheme == "https"):
        raise RegistryMisbehaved(
            f"{host.name}: wants a password or token sent without TLS to {origin}; not sent "
            "(name the registry insecure if that is intended)"
        )
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, origin.authority, parts.path, parts.query, ""))


def token_request(
    plan: TokenPlan, scopes: tuple[str, ...], credential: Credential | None, *, insecure: bool
) -> Request:
    """Return the request for a token: GET, with user and password if known; POST for an identity token."""
    service = [("service", plan.service)] if plan.service else []
    if credential is not None and credential.identity_token:
        form = [
            ("grant_type", "refresh_token"),
            *service,
            ("client_id", _CLIENT_ID),
            ("scope", " ".join(scopes)),
            ("refresh_token", credential.identity_token),
        ]
        return Request(
            "POST", plan.realm, "application/json", form=urlencode(form).encode(), insecure=insecure
        )
    query = [*service, *(("scope", scope) for scope in scopes)]
    if credential is not None:
        query.insert(0, ("account", credential.username))
    joint = "&" if urlsplit(plan.realm).query else "?"
    url = f"{plan.realm}{joint}{urlencode(query)}"
    authorization = None if credential is None else credential.basic
    return Request("GET", url, "application/json", authorization=authorization, insecure=insecure)


class Token(msgspec.Struct, frozen=True):
    """A bearer token. Its repr does not show it."""

    value: str
    life: float
    """Seconds from when it was asked for."""

    def __repr__(self) -> str:
        return f"Token(life={self.life})"


class _TokenJson(msgspec.Struct, frozen=True):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | str | None = None


def parse_token(raw: bytes, server: str) -> Token:
    """Read the answer of *server*. Raises RegistryMisbehaved, without its text.

    A life below 60 s, or none, counts as 60 s, as older servers expect. ``issued_at`` is not used: it would
    only be right if both clocks were.
    """
    try:
        json = decode_json(raw, _TokenJson)
    except msgspec.DecodeError:
        raise RegistryMisbehaved(f"{server}: its answer is not JSON with a token") from None
    value = json.token or json.access_token or ""
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise RegistryMisbehaved(f"{server}: its answer holds no usable token (expected 'token')")
    return Token(value, max(_DEFAULT_LIFE, _seconds(json.expires_in)))


def _seconds(life: float | str | None) -> float:
    try:
        seconds = float(life or 0)
    except ValueError:
        return _DEFAULT_LIFE
    return min(seconds, 1e9) if math.isfinite(seconds) else _DEFAULT_LIFE


def no_way_in(registry: str, challenges: tuple[Challenge, ...]) -> Denied:
    """Return the error for a registry that offers no way to authenticate that we know."""
    offered = ", ".join(sorted({challenge.scheme[:30] for challenge in challenges})) or "none"
    return Denied(
        f"{registry}: wants a login, but by no way known here ({offered}; expected Bearer or Basic)"
    )
