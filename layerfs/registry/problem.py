"""What an answer that is no success means. Pure.

Sources: distribution-spec, "Error Codes"; quirks of Harbor and registry.redhat.io as handled by c/image.
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from layerfs.errors import Denied, NotFound, RateLimited, RegistryError, RegistryMisbehaved, Unreachable
from layerfs.foreign import LINE, decode_json, printable

MAX_ERROR_BODY: Final = 1 << 20
"""Bytes; as c/image (internal/iolimits)."""

_NOT_FOUND: Final = {"NAME_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "NAME_INVALID", "NOT_FOUND"}
_DENIED: Final = {"DENIED", "UNAUTHORIZED"}
_GATEWAY: Final = {408, 425, 502, 503, 504, 522, 524}
_CODE = re.compile(r"[A-Za-z_]{1,40}")
_SECRETS = re.compile(
    r"(?i)\b(?:bearer|basic)\s+[\w+/=.~-]{4,}"  # an echoed Authorization
    r"|\beyJ[\w-]*\.[\w-]*(?:\.[\w-]*)?"  # a JSON web token
    r"|(?<=\?)\S+"  # the query of a URL
    r"|(?<=://)[^/@\s]*@"  # user and password of a URL
)


class _ErrorJson(msgspec.Struct, frozen=True):
    code: str | None = None
    message: str | None = None


class _ErrorsJson(msgspec.Struct, frozen=True):
    errors: list[_ErrorJson | None] | None = None
    details: str | None = None  # of token servers
    error: str | None = None
    error_description: str | None = None


class Problem(msgspec.Struct, frozen=True):
    """What a registry says is wrong."""

    status: int
    codes: frozenset[str] = frozenset()
    message: str = ""
    """One line without secrets, may be empty."""

    @classmethod
    def parse(cls, status: int, body: bytes, secrets: Iterable[str] = ()) -> "Problem":
        """Read an error body of any kind; what cannot be read counts as silence.

        *secrets* of the request are blotted out, should the server echo them.
        """
        try:
            json = decode_json(body, _ErrorsJson)
        except msgspec.DecodeError:
            return cls(status)
        errors = [error for error in json.errors or () if error is not None]
        texts = [error.message for error in errors] or [json.details or json.error_description or json.error]
        codes = frozenset(
            error.code.upper() for error in errors if error.code and _CODE.fullmatch(error.code)
        )
        return cls(status, codes, without_secrets("; ".join(filter(None, texts)), secrets))

    @property
    def summary(self) -> str:
        """Status and what the registry wrote."""
        codes = ",".join(sorted(self.codes))[:100]
        said = ": ".join(filter(None, (codes, self.message)))
        return f"status {self.status}" + (f" ({said})" if said else "")

    def error(
        self, what: str, registry: str, login: str = "no credentials", login_at: str = ""
    ) -> RegistryError:
        """Return the error for *what*, which *registry* did not give; *login* says what was tried.

        *login_at* is the registry to log in to, where it was a token server that was asked.
        """
        login_at = login_at or registry
        if self.status == 429 or "TOOMANYREQUESTS" in self.codes:
            return RateLimited(
                f"{what}: {registry} says too many requests, {self.summary}, used {login}; "
                f"wait, or log in for a higher limit: layerfs login {login_at}"
            )
        if self._is_missing:
            lost = "BLOB_UNKNOWN" in self.codes
            advice = "it has lost a part of the image: push it again" if lost else "check name and tag"
            return NotFound(f"{what}: {registry} does not have it, {self.summary}; {advice}")
        if self.status in (401, 403, 451) or (self.status < 500 and self.codes & _DENIED):
            return Denied(
                f"{what}: {registry} refuses it, {self.summary}, used {login}; "
                f"check the name, or log in: layerfs login {login_at}"
            )
        if self.status in _GATEWAY:
            return Unreachable(f"{what}: {registry} is not in service, {self.summary}; try again later")
        advice = "try again later, or tell who runs it" if self.status >= 500 else "is it a registry?"
        return RegistryMisbehaved(f"{what}: unexpected answer of {registry}, {self.summary}; {advice}")

    def error_of_other(self, what: str, server: str, registry: str) -> RegistryError:
        """Return the error for *what*, to which *registry* led, and *server* answered."""
        kind = type(self.error(what, server))
        return kind(
            f"{what}: {server}, where {registry} leads to, answers {self.summary}; "
            f"try again later, or tell who runs {registry}"
        )

    @property
    def _is_missing(self) -> bool:
        if self.status == 404 or (400 <= self.status < 500 and self.codes & _NOT_FOUND):
            return True
        # Harbor and registry.redhat.io: code UNKNOWN, and the reason in words.
        return 400 <= self.status < 500 and "UNKNOWN" in self.codes and "not found" in self.message.lower()


def without_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """Return what a server said as a short printable line.

    What looks like a secret is blotted out, and so are the *secrets* of the request, should it be echoed.
    """
    for secret in secrets:
        text = text.replace(secret, "...")
    return printable(_SECRETS.sub("...", printable(text, 4 * LINE)), LINE)
