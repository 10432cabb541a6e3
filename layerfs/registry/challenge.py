"""What a 401 asks for: a reader of WWW-Authenticate (RFC 9110, section 11.6.1). Pure and total.

It never raises: registries write this header in many wrong ways, and what cannot be read is skipped.
"""

import re
from collections.abc import Iterable, Iterator

import msgspec

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - the grammar's word for a word
_SEPARATORS = re.compile(r"[\s,]*")
_SCHEME = re.compile(rf"({_TOKEN})(?=[\s,]|$)")
# Between quotes everything counts, commas too; a quote that never ends takes the rest. Without
# quotes a URL is no token, but some registries write their realm so.
_PARAMETER = re.compile(rf'({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)(?:"|\\?$)|([^\s,"]*))', re.DOTALL)
_TOKEN68 = re.compile(r"\s+[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$))")
_JUNK = re.compile(r"[^\s,]+")


class Challenge(msgspec.Struct, frozen=True):
    """One way to authenticate that the server offers; names in lower case, the first of equal ones counts."""

    scheme: str
    parameters: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        """Return a parameter, empty if it is missing."""
        return next((value for key, value in self.parameters if key == name), "")

    @property
    def wants_more_scope(self) -> bool:
        """Whether the token was good, but not for this (RFC 6750, section 3.1)."""
        return self.scheme == "bearer" and self.get("error") == "insufficient_scope"

    def __str__(self) -> str:
        pairs = (f'{key}="{_quote(value)}"' for key, value in self.parameters)
        return f"{self.scheme} {', '.join(pairs)}".rstrip()


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Read all occurrences of the header, each of which may hold several challenges."""
    return tuple(challenge for header in headers for challenge in _read(header))


def _read(header: str) -> Iterator[Challenge]:
    scheme, found = "", dict[str, str]()
    at = _after(_SEPARATORS, header, 0)
    while at < len(header):
        if match := _PARAMETER.match(header, at):
            found.setdefault(match[1].lower(), _unquote(match[2]) if match[2] is not None else match[3])
            at = match.end()
        elif match := _SCHEME.match(header, at):
            if scheme:
                yield Challenge(scheme, tuple(found.items()))
            scheme, found = match[1].lower(), {}
            at = _after(_TOKEN68, header, match.end())
        else:
            at = _after(_JUNK, header, at)
        at = _after(_SEPARATORS, header, at)
    if scheme:
        yield Challenge(scheme, tuple(found.items()))


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _quote(text: str) -> str:
    return re.sub(r'(["\\])', r"\\\1", text)
