"""Who we are to a registry: what the credential files of podman and docker say. Pure.

Sources: containers-auth.json(5), docker's config.json; the order of keys is c/image's
(pkg/docker/config). Files and helpers are read by `layerfs.registry.keychain`.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping
from typing import ClassVar, Final, Self

import msgspec

from layerfs.discreet import Discreet
from layerfs.errors import InvalidSettings
from layerfs.foreign import strict_json
from layerfs.oci.reference import DOCKER_HUB, DOCKER_HUB_ALIASES

HUB_SERVER: Final = "https://index.docker.io/v1/"
"""What Docker Hub is called in docker's files and to its helpers."""

_HUB_NAMES: Final = DOCKER_HUB_ALIASES | {DOCKER_HUB}
_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+")
_TOKEN_USER: Final = "<token>"  # noqa: S105 - the user name that says: the password is a token


class Credential(Discreet, frozen=True):
    """A login. Only one of the three ways is set; its repr shows no secret."""

    hidden: ClassVar[frozenset[str]] = frozenset({"password", "identity_token", "registry_token"})

    source: str
    """Where it was found, for messages."""
    username: str = ""
    password: str = ""
    identity_token: str = ""
    """To be traded for a token."""
    registry_token: str = ""
    """A token already."""

    @classmethod
    def of(cls, source: str, username: str, secret: str) -> Self:
        """Take a user and a secret as helpers give them."""
        if username == _TOKEN_USER:
            return cls(source, identity_token=secret)
        return cls(source, username, secret)

    @property
    def basic(self) -> str:
        """The value of an Authorization header with user and password (RFC 7617, in UTF-8)."""
        return "Basic " + b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")

    def __str__(self) -> str:
        who = f"user {self.username[:80]!r}" if self.username else "a token"
        return f"{who} of {self.source}"


class _EntryJson(msgspec.Struct, frozen=True):
    auth: str | None = None
    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None
    registrytoken: str | None = None


class _FileJson(msgspec.Struct, frozen=True, rename="camel"):
    auths: dict[str, _EntryJson] | None = None
    cred_helpers: dict[str, str] | None = None
    creds_store: str | None = None


class AuthFile(Discreet, frozen=True):
    """One credential file."""

    hidden: ClassVar[frozenset[str]] = frozenset({"auths"})

    source: str
    auths: Mapping[str, _EntryJson]
    helpers: Mapping[str, str]
    """For a registry the helper that alone knows about it."""
    store: str
    """The helper for all other registries; empty if there is none."""

    @classmethod
    def parse(cls, raw: bytes, source: str, *, legacy: bool = False) -> Self:
        """Read a file; *legacy* is ~/.dockercfg, which holds only logins. Raises InvalidSettings."""
        try:
            if legacy:
                return cls(source, strict_json(raw, dict[str, _EntryJson]), {}, "")
            json = strict_json(raw or b"{}", _FileJson)
        except msgspec.DecodeError as exc:
            # The text of a decoding error names fields and types, never a value.
            raise InvalidSettings(f"{source}: not a credential file: {exc}") from None
        return cls(source, json.auths or {}, json.cred_helpers or {}, json.creds_store or "")

    def registries(self) -> frozenset[str]:
        """Return the registries that the file names, logins and helpers, as references spell them."""
        hosts = {_normalised(key).partition("/")[0] for key in (*self.auths, *self.helpers)}
        return frozenset(DOCKER_HUB if host in _HUB_NAMES else host for host in hosts)

    def helper_for(self, registry: str) -> str:
        """Return the name of the helper that decides for *registry*, empty if none is named."""
        named = (self.helpers[key] for key in _host_keys(registry) if key in self.helpers)
        return next(named, "")

    def login(self, registry: str, repository: str) -> Credential | None:
        """Return what the file itself holds, the most specific key first."""
        for key in _keys(registry, repository):
            credential = self._credential(self.auths.get(key))
            if credential is not None:
                return credential
        for key, entry in self.auths.items():
            if _normalised(key) in _host_keys(registry):
                credential = self._credential(entry)
                if credential is not None:
                    return credential
        return None

    def _credential(self, entry: _EntryJson | None) -> Credential | None:
        if entry is None:
            return None
        if entry.registrytoken:
            return Credential(self.source, registry_token=entry.registrytoken)
        if entry.identitytoken:
            return Credential(self.source, identity_token=entry.identitytoken)
        username, password = entry.username or "", entry.password or ""
        if entry.auth:
            username, password = self._decoded(entry.auth)
        # An empty entry only marks that a helper knows more.
        return Credential.of(self.source, username, password) if username else None

    def _decoded(self, auth: str) -> tuple[str, str]:
        try:
            text = b64decode(auth).decode().rstrip("\0")
        except (Base64Error, ValueError):
            text = ""
        username, colon, password = text.partition(":")
        if not colon:
            raise InvalidSettings(f"{self.source}: an 'auth' that is not base64 of user:password")
        return username, password


def helper_program(name: str) -> str:
    """Return the program of a helper. Raises InvalidSettings for a name that could be a path."""
    if not _HELPER_NAME.fullmatch(name):
        raise InvalidSettings(f"not a credential helper: {name[:100]!r} (expected letters, digits, '._-')")
    return f"docker-credential-{name}"


def helper_server(registry: str) -> str:
    """Return the name by which helpers know *registry*."""
    return HUB_SERVER if registry in _HUB_NAMES else registry


class _HelperJson(msgspec.Struct, frozen=True):
    Username: str = ""
    Secret: str = ""


def parse_helper_answer(raw: bytes, helper: str) -> Credential | None:
    """Read what ``docker-credential-X get`` printed. Raises InvalidSettings, without its text."""
    try:
        answer = strict_json(raw, _HelperJson)
    except msgspec.DecodeError:
        raise InvalidSettings(f"{helper}: its answer is not JSON with Username and Secret") from None
    return Credential.of(helper, answer.Username, answer.Secret) if answer.Secret else None


def _keys(registry: str, repository: str) -> Iterator[str]:
    """Yield the keys of an image in a file: the repository, its parents, the registry."""
    path = f"{registry}/{repository}"
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield from _host_keys(registry)


def _host_keys(registry: str) -> tuple[str, ...]:
    if registry in _HUB_NAMES:
        return (registry, *sorted(_HUB_NAMES - {registry}), HUB_SERVER)
    return (registry,)


def _normalised(key: str) -> str:
    """Reduce the URLs that docker writes as keys to a host."""
    scheme, separator, rest = key.partition("://")
    return rest.partition("/")[0] if separator and scheme in ("http", "https") else key
