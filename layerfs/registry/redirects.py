"""Where a redirect may lead, and what may be sent there. Pure.

httpx follows redirects too, but forwards every header except Authorization to the new host, and goes from
https to http.
"""

from base64 import b64decode
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qsl, urljoin, urlsplit

import msgspec

from layerfs.errors import RegistryMisbehaved
from layerfs.registry.body import Body
from layerfs.registry.mirrors.values import HostLink
from layerfs.registry.ranges import ALL, Range
from layerfs.registry.reach import Reach
from layerfs.registry.traffic import HostKind
from layerfs.registry.weborigin import WebOrigin, redact

MAX_REDIRECTS: Final = 10
STATUSES: Final = frozenset({301, 302, 303, 307, 308})

_SECRET_FIELDS: Final = frozenset({"refresh_token", "password"})


class Request(msgspec.Struct, frozen=True):
    """One HTTP request. Its repr shows no secret."""

    method: str
    url: str
    accept: str = "*/*"
    range: Range = ALL
    authorization: str | None = None
    """Belongs to the origin of ``url``."""
    form: bytes | None = None
    body: Body | None = None
    insecure: bool = False
    """Allows plain HTTP after HTTPS, and certificates that do not verify."""
    reach: Reach | None = None
    """Where it may be connected to; None for anywhere, as the user named the origin."""
    kind: HostKind = "upstream"
    """As whose the bytes of the answer count, wherever redirects lead."""
    more: tuple[tuple[str, str], ...] = ()
    """Headers that the user wants sent to the origin of ``url``."""
    link: HostLink = HostLink()
    """How the origin of ``url`` is connected to."""

    @property
    def origin(self) -> WebOrigin:
        """Who sees the request."""
        return WebOrigin.of(self.url)

    def headers(self, user_agent: str) -> list[tuple[str, str]]:
        """Return all headers to send: a list made anew for each hop, so that none can leak."""
        # A login that was asked for is better than one that is always sent.
        more = [one for one in self.more if self.authorization is None or one[0].lower() != "authorization"]
        replaced = {name.lower() for name, _ in more}
        ours = self._headers(user_agent)
        return [(name, value) for name, value in ours.items() if name.lower() not in replaced] + more

    def _headers(self, user_agent: str) -> dict[str, str]:
        made = {"User-Agent": user_agent, "Accept": self.accept, "Accept-Encoding": "identity"}
        if self.range.header is not None:
            made["Range"] = self.range.header
        if self.authorization is not None:
            made["Authorization"] = self.authorization
        if self.form is not None:
            made["Content-Type"] = "application/x-www-form-urlencoded"
        if self.body is not None:
            made["Content-Type"] = self.body.media_type
            made["Content-Length"] = str(self.body.size)
        return made

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be shown, should the server echo it; the longest first."""
        found = [value for _, value in parse_qsl(urlsplit(self.url).query)]
        if self.form is not None:
            found += [value for key, value in parse_qsl(self.form.decode()) if key in _SECRET_FIELDS]
        if self.authorization is not None:
            found += [self.authorization, *_parts(self.authorization)]
        for name, value in self.more:
            found += [value, *(_parts(value) if name.lower() == "authorization" else ())]
        return tuple(sorted({secret for secret in found if len(secret) >= 4}, key=len, reverse=True))

    def __repr__(self) -> str:
        return f"{self.method} {redact(self.url)}"


def follow(request: Request, status: int, location: str | None, elsewhere: Reach) -> Request:
    """Return the request that a redirect asks for; *elsewhere* is where it may lead to.

    Raises RegistryMisbehaved for a redirect that leads nowhere, from https to http, or one that
    would carry a form (it holds a token) to another origin.
    """
    if not location:
        raise RegistryMisbehaved(f"{request!r}: status {status} without Location (expected a URL)")
    url = _joined(request, location)
    there, here = WebOrigin.of(url), request.origin
    if here.scheme == "https" and there.scheme != "https" and not request.insecure:
        raise RegistryMisbehaved(
            f"{request!r}: redirects from https to {redact(url)!r}; not followed "
            "(name the registry insecure if that is intended)"
        )
    if request.form is not None and (there != here or status not in (307, 308)):
        raise RegistryMisbehaved(f"{request!r}: redirects a form with a token to {redact(url)!r}; not sent")
    if request.body is not None and status not in (307, 308):
        raise RegistryMisbehaved(f"{request!r}: status {status} to {redact(url)!r}; not sent again there")
    method = "GET" if status == 303 and request.method != "HEAD" else request.method
    if there == here:
        return msgspec.structs.replace(request, method=method, url=url)
    return msgspec.structs.replace(
        request, method=method, url=url, authorization=None, reach=elsewhere, more=(), link=HostLink()
    )


def _parts(authorization: str) -> Iterator[str]:
    """Yield the token of an Authorization header, or user:password and password."""
    scheme, _, value = authorization.partition(" ")
    yield value
    if scheme == "Basic":
        text = b64decode(value).decode(errors="replace")
        yield text
        yield text.partition(":")[2]


def _joined(request: Request, location: str) -> str:
    try:
        url = urljoin(request.url, location.strip())
    except ValueError:
        url = ""
    origin = WebOrigin.of(url)
    if "@" in url.split("://", 1)[1].split("/", 1)[0]:
        raise RegistryMisbehaved(f"{request!r}: redirects to a URL with a password at {origin}; not followed")
    return url.split("#", 1)[0]
