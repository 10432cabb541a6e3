"""One HTTP exchange: a request out, redirects followed, an answer in. Decides nothing about registries.

The only module that imports httpx. Called by `layerfs.registry.requester`. Every error it raises is
a RegistryError whose text holds no secret; the logs of httpx and httpcore, which do, are silenced.
"""

import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import httpx
import trio

from layerfs.errors import InvalidSettings, RegistryError, RegistryMisbehaved, RegistryTimeout, Unreachable
from layerfs.registry import redirects
from layerfs.registry.endpoint import Origin, redact
from layerfs.registry.problem import MAX_ERROR_BODY, Problem, clean
from layerfs.registry.proxies import proxy_for
from layerfs.registry.redirects import Request
from layerfs.registry.settings import RegistrySettings
from layerfs.registry.tls import certificate_dir, context, plain_context

_log = logging.getLogger("layerfs.registry")
_DRAINED: Final = 64 << 10


class Hopeless(Unreachable):
    """No connection, and no use in trying again at once."""


class Reply:
    """The answer to a request: status and headers, and a body to be read once. Must be closed."""

    request: Request
    """The request that was answered, the last of a chain of redirects."""
    status: int
    headers: Mapping[str, str]
    """Names in any case; repeated ones joined by ", "."""
    on_close: Callable[[], None]
    """Called once, when the exchange is over."""
    _body: AsyncIterator[bytes] | None

    def __init__(self, response: httpx.Response, request: Request) -> None:
        self.request = request
        self.status = response.status_code
        self.headers = response.headers
        self.on_close = lambda: None
        self._response = response
        self._body = None
        self._whole: bytes | None = None

    def header_list(self, name: str) -> list[str]:
        """Return each occurrence of a header that may stand several times."""
        return self._response.headers.get_list(name)

    async def next_chunk(self, what: str, *, decoded: bool = False) -> bytes | None:
        """Return the next bytes of the body, None at its end; *decoded* undoes a Content-Encoding.

        Raises RegistryTimeout, Unreachable (the connection broke) or RegistryMisbehaved, naming *what*.
        """
        if self._body is None:
            self._body = self._response.aiter_bytes() if decoded else self._response.aiter_raw()
        try:
            return await anext(self._body, None)
        except (httpx.HTTPError, httpx.StreamError, ssl.SSLError, OSError) as exc:
            raise _translated(exc, self.request, what) from None

    async def read(self, limit: int, what: str) -> bytes:
        """Return the whole decoded body, also a second time.

        Raises RegistryMisbehaved if it is longer than *limit* bytes, and what `next_chunk` raises.
        """
        if self._whole is None:
            body = bytearray()
            while (chunk := await self.next_chunk(what, decoded=True)) is not None:
                body += chunk
                if len(body) > limit:
                    raise RegistryMisbehaved(
                        f"{what}: more than {limit} bytes from {self.request.origin} (expected at most that)"
                    )
            self._whole = bytes(body)
        return self._whole

    async def problem(self) -> Problem:
        """Read the body as an error and close; one that cannot be read is an error without text."""
        try:
            body = await self.read(MAX_ERROR_BODY, "error body")
            return Problem.parse(self.status, body, self.request.secrets())
        except RegistryError:
            return Problem(self.status)
        finally:
            await self.aclose()

    async def drain(self) -> None:
        """Read a short body that nobody wants and close, so that the connection can be used again."""
        try:
            await self.read(_DRAINED, "body")
        except RegistryError:
            _log.debug("%r: closed with its connection", self.request)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Give the connection back, or close it if the body was not read to its end."""
        on_close, self.on_close = self.on_close, lambda: None
        on_close()
        with trio.CancelScope(shield=True):
            await self._response.aclose()
            await self._exhaust()

    async def _exhaust(self) -> None:
        # httpx nests generators, and trio warns about each that is collected unfinished. Reading on
        # from the closed connection fails at once, and that failure ends all of them.
        body, self._body = self._body, None
        if body is not None:
            try:
                while await anext(body, None) is not None:
                    pass
            except (httpx.HTTPError, httpx.StreamError, RuntimeError, OSError):
                pass


@dataclass(frozen=True, slots=True)
class _Route:
    """What requests must have in common to share a pool of connections."""

    tls: bool
    verify: bool
    certificates: Path | None
    proxy: str | None = field(repr=False)


class Transport:
    """Owns the connection pools. An async context manager.

    They are httpx's transports without its client on top, which would keep cookies and look into redirects.
    """

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        self._pools: dict[_Route, httpx.AsyncHTTPTransport] = {}
        self._routes: dict[tuple[Origin, bool], _Route] = {}
        self._making = trio.Lock()
        self._timeout = httpx.Timeout(
            settings.idle_timeout, connect=settings.connect_timeout, pool=None
        ).as_dict()

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        _silence_libraries()
        return self

    async def __aexit__(self, *_: object) -> None:
        pools, self._pools = list(self._pools.values()), {}
        with trio.CancelScope(shield=True):
            for pool in pools:
                await pool.aclose()

    async def open(self, request: Request, what: str) -> Reply:
        """Send *request*, follow redirects, return the answer of any other status; the caller closes it.

        Raises Unreachable, RegistryTimeout or RegistryMisbehaved, naming *what* was asked for.
        """
        for _ in range(redirects.MAX_REDIRECTS + 1):
            reply = await self._send(request, what)
            if reply.status not in redirects.STATUSES:
                return reply
            await reply.drain()
            request = redirects.follow(request, reply.status, reply.headers.get("location"))
        raise RegistryMisbehaved(
            f"{what}: more than {redirects.MAX_REDIRECTS} redirects, last to {request!r}"
        )

    async def _send(self, request: Request, what: str) -> Reply:
        pool = await self._pool(request)
        try:
            made = httpx.Request(
                request.method,
                request.url,
                headers=request.headers(self._settings.user_agent),
                content=request.form,
                extensions={"timeout": self._timeout},
            )
            response = await pool.handle_async_request(made)
        except httpx.InvalidURL:
            raise RegistryMisbehaved(f"{what}: not a URL: {redact(request.url)!r}") from None
        except (httpx.HTTPError, ssl.SSLError, OSError) as exc:
            raise _translated(exc, request, what) from None
        response.request = made
        _log.debug("%r: %d", request, response.status_code)
        return Reply(response, request)

    async def _pool(self, request: Request) -> httpx.AsyncHTTPTransport:
        origin = request.origin
        key = origin, request.insecure
        route = self._routes.get(key)
        if route is None:
            route = await trio.to_thread.run_sync(self._route, origin, request.insecure)
            self._routes[key] = route
        if route not in self._pools:
            async with self._making:
                if route not in self._pools:
                    self._pools[route] = await trio.to_thread.run_sync(_new_pool, route)
        return self._pools[route]

    def _route(self, origin: Origin, insecure: bool) -> _Route:
        tls = origin.scheme == "https"
        return _Route(
            tls=tls,
            verify=tls and not insecure and not origin.is_loopback,
            certificates=certificate_dir(origin, self._settings.certs_dirs) if tls else None,
            proxy=proxy_for(origin, self._settings.environment),
        )


def _new_pool(route: _Route) -> httpx.AsyncHTTPTransport:
    ssl_context = context(route.certificates, verify=route.verify) if route.tls else plain_context()
    try:
        _ = urlsplit(route.proxy or "").port  # httpx does not mind one that cannot be
        return httpx.AsyncHTTPTransport(
            verify=ssl_context,
            proxy=route.proxy,
            trust_env=False,  # proxies are decided by `_route`
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=30),
        )
    except (ValueError, ImportError, httpx.InvalidURL) as exc:
        raise InvalidSettings(
            f"proxy {redact(route.proxy or '')!r} cannot be used: {type(exc).__name__} "
            "(expected http://host:port)"
        ) from None


def _translated(exc: Exception, request: Request, what: str) -> RegistryError:
    """Return our error for httpx's, to be raised from None: the text of theirs may quote the server."""
    origin = Origin.of(request.url)
    cause = _cause(exc)
    reason = clean(str(cause), request.secrets()) or type(cause).__name__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Hopeless(
            f"{what}: the certificate of {origin} is not to be believed: {clean(cause.verify_message)}; "
            "add its authority to /etc/containers/certs.d, or name the registry insecure"
        )
    if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
        return Hopeless(f"{what}: no host of the name {origin.host}; check the registry's name, and DNS")
    if isinstance(exc, httpx.ConnectTimeout):
        return Unreachable(f"{what}: no connection to {origin} in time; check network and firewall")
    if isinstance(exc, httpx.TimeoutException):
        return RegistryTimeout(f"{what}: {origin} sends nothing any more; try again later")
    if isinstance(exc, httpx.ConnectError | ssl.SSLError):
        return Unreachable(f"{what}: no connection to {origin}: {reason}; check name, port and network")
    if isinstance(exc, httpx.DecodingError | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return RegistryMisbehaved(f"{what}: unreadable answer of {origin}: {reason}")
    return Unreachable(f"{what}: connection to {origin} broke: {reason}")


def _cause(exc: BaseException) -> BaseException:
    """Return the innermost exception that says something: httpx's own often have no text."""
    found = exc
    cause = exc.__cause__ or exc.__context__
    while cause is not None:
        if str(cause):
            found = cause
        cause = cause.__cause__ or cause.__context__
    return found


def _silence_libraries() -> None:
    """Keep request lines with presigned URLs, and headers with tokens, out of every log."""
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
