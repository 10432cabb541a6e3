"""One HTTP exchange: a request out, redirects followed, an answer in. Decides nothing about registries.

Every error it raises is a RegistryError whose text holds no secret, or InvalidSettings; the logs of httpx
and httpcore, which do, are silenced.
"""

import logging
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import httpcore
import httpx
import trio

from layerfs.errors import InvalidSettings, RegistryMisbehaved
from layerfs.registry import redirects
from layerfs.registry.endpoint import WebOrigin, redact
from layerfs.registry.failures import translated
from layerfs.registry.proxies import proxy_for
from layerfs.registry.redirects import Request
from layerfs.registry.reply import Reply
from layerfs.registry.settings import RegistrySettings
from layerfs.registry.tls import certificate_dir, context, plain_context

_log = logging.getLogger("layerfs.registry")
_READ: Final = 256 * 1024
"""Bytes that httpcore reads at once, in all of this process. With its own 64 KiB a fast download over plain
HTTP takes a third longer; TLS has records of 16 KiB."""


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
        self._routes: dict[tuple[WebOrigin, bool], _Route] = {}
        self._making = trio.Lock()
        self._timeout = httpx.Timeout(
            settings.idle_timeout, connect=settings.connect_timeout, pool=None
        ).as_dict()

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        _silence_libraries()
        httpcore.AsyncHTTP11Connection.READ_NUM_BYTES = _READ
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
            raise translated(exc, request, what) from None
        response.request = made
        _log.debug("%r: %d", request, response.status_code)
        return Reply(response, request, self._settings.document_timeout)

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

    def _route(self, origin: WebOrigin, insecure: bool) -> _Route:
        tls = origin.scheme == "https"
        return _Route(
            tls=tls,
            verify=tls and not insecure and not origin.is_loopback,
            certificates=certificate_dir(origin, self._settings.certs_dirs) if tls else None,
            proxy=proxy_for(origin, self._settings.variables),
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


def _silence_libraries() -> None:
    """Keep request lines with presigned URLs, and headers with tokens, out of every log."""
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
