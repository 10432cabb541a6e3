"""One HTTP exchange: a request out, redirects followed, an answer in. Decides nothing about registries.

Every error it raises is a RegistryError whose text holds no secret, or InvalidSettings; the logs of httpx
and httpcore, which do, are silenced.
"""

import logging
import ssl
from ipaddress import ip_network
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import msgspec
import trio

from layerfs.discreet import Discreet
from layerfs.errors import Denied, InvalidSettings, RegistryMisbehaved
from layerfs.registry import redirects
from layerfs.registry.bandwidth import Bandwidth
from layerfs.registry.failures import translated
from layerfs.registry.http import httpx
from layerfs.registry.mirrors.values import HostLink
from layerfs.registry.places import Crowded, Place, Sites
from layerfs.registry.pool import DirectPool, Gate, addresses_of, refused
from layerfs.registry.proxies import proxy_for
from layerfs.registry.reach import Reach, Scope, common_scope, literal_address, scope_of, site_of
from layerfs.registry.redirects import Request
from layerfs.registry.reply import Reply
from layerfs.registry.settings import RegistrySettings
from layerfs.registry.tls import certificate_dir, context, plain_context
from layerfs.registry.traffic import Traffic
from layerfs.registry.weborigin import WebOrigin, redact

_log = logging.getLogger("layerfs.registry")


class _Route(Discreet, frozen=True):
    """What requests must have in common to share a pool of connections."""

    hidden: ClassVar[frozenset[str]] = frozenset({"proxy"})

    tls: bool
    verify: bool
    certificates: Path | None
    shows_itself: bool
    """Whether a certificate of our own is shown."""
    proxy: str | None
    reach: Reach | None
    link: HostLink


class Transport:
    """Owns the connection pools. An async context manager.

    They are httpx's transports without its client on top, which would keep cookies and look into redirects.
    Behind a proxy, which resolves names itself, only addresses that a URL spells can be judged.
    """

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        self._pools: dict[_Route, httpx.AsyncBaseTransport] = {}
        self._routes: dict[tuple[WebOrigin, bool, Reach | None, HostLink], _Route] = {}
        self._homes: dict[WebOrigin, Scope] = {}
        self.sites = Sites()
        self.traffic = Traffic()
        self._networks = tuple(ip_network(text) for text in sorted(settings.reachable_networks))
        self._making = trio.Lock()
        self._bandwidth = Bandwidth(settings.max_bandwidth)
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

    async def open(self, request: Request, what: str, place: Place) -> Reply:
        """Send *request*, follow redirects, return the answer of any other status; the caller closes it.

        The first connection moves *place* to where it leads; those of redirects count there too.

        Raises Unreachable, RegistryTimeout or RegistryMisbehaved, naming *what* was asked for, Denied for an
        address that may not be connected to, and Crowded if others have all places there.
        """
        movable: Place | None = place
        for _ in range(redirects.MAX_REDIRECTS + 1):
            try:
                reply = await self._send(request, what, movable)
            except Denied as exc:  # where it was led to, which does not know what for
                raise Denied(f"{what}: {exc}") from exc
            movable = None
            if reply.status not in redirects.STATUSES:
                return reply
            await reply.drain()
            elsewhere = request.reach or await self.reach_from(request.origin)
            request = redirects.follow(request, reply.status, reply.headers.get("location"), elsewhere)
        raise RegistryMisbehaved(
            f"{what}: more than {redirects.MAX_REDIRECTS} redirects, last to {request!r}"
        )

    async def reach_from(self, origin: WebOrigin) -> Reach:
        """Return where a registry at *origin* may lead to."""
        home = self._homes.get(origin)
        if home is None:  # never connected to, or through a proxy
            home = await self._look_up(origin)
        return Reach(home, self._networks)

    async def _look_up(self, origin: WebOrigin) -> Scope:
        address = literal_address(origin.host)
        if address is not None:
            return scope_of(address)
        if proxy_for(origin, self._settings.variables) is not None:
            return "public"
        try:
            return common_scope(await addresses_of(origin.host, origin.port))
        except OSError:
            return "public"

    async def _send(self, request: Request, what: str, place: Place | None) -> Reply:
        route, pool = await self._pool(request)
        extensions: dict[str, Any] = {"timeout": self._timeout | _patience(request, self._settings)}
        if request.link.connect_timeout is not None:
            extensions["timeout"]["connect"] = request.link.connect_timeout
        if route.proxy is None:
            extensions["trace"] = _Arrival(request.origin.host, self.sites, place).heed
        else:
            self._behind_proxy(request.origin.host, route.reach, place)
        try:
            made = httpx.Request(
                request.method,
                request.url,
                headers=request.headers(self._settings.user_agent),
                content=request.form if request.body is None else request.body.opened(),
                extensions=extensions,
            )
            response = await pool.handle_async_request(made)
        except httpx.InvalidURL:
            raise RegistryMisbehaved(f"{what}: not a URL: {redact(request.url)!r}") from None
        except (httpx.HTTPError, ssl.SSLError, OSError) as exc:
            raise translated(exc, request, what) from None
        response.request = made
        if route.proxy is None and request.reach is None:
            peer = response.extensions["network_stream"].get_extra_info("server_addr")
            self._homes[request.origin] = scope_of(peer[0])
        _log.debug("%r: %d", request, response.status_code)
        return Reply(response, request, self._settings.document_timeout, self._bandwidth, self.traffic)

    def _behind_proxy(self, host: str, reach: Reach | None, place: Place | None) -> None:
        """Judge what only the proxy will connect to. Raises Denied, Crowded."""
        address = literal_address(host)
        if address is not None and reach is not None and not reach.allows(address):
            raise refused(host, address)
        site = host.rstrip(".") if address is None else site_of(address)
        self.sites.learn(host, site)
        if place is not None:
            place.move(site)

    async def _pool(self, request: Request) -> tuple[_Route, httpx.AsyncBaseTransport]:
        key = request.origin, request.insecure, request.reach, request.link
        route = self._routes.get(key)
        if route is None:
            route = await trio.to_thread.run_sync(self._route, *key)
            self._routes[key] = route
        if route not in self._pools:
            async with self._making:
                if route not in self._pools:
                    self._pools[route] = await trio.to_thread.run_sync(_new_pool, route)
        return route, self._pools[route]

    def _route(self, origin: WebOrigin, insecure: bool, reach: Reach | None, link: HostLink) -> _Route:
        tls, said = origin.scheme == "https", self._settings
        return _Route(
            tls=tls,
            verify=tls and not insecure and (said.tls_verify is True or _is_to_verify(origin, link)),
            certificates=(said.cert_dir or certificate_dir(origin, said.certs_dirs)) if tls else None,
            # What is said of all registries holds for those alone that the user has named.
            shows_itself=said.cert_dir is None or reach is None,
            proxy=link.proxy or proxy_for(origin, self._settings.variables),
            reach=reach,
            link=link,
        )


class _Arrival(msgspec.Struct, frozen=True):
    """Hears where the connection for one request leads; an httpx "trace" extension."""

    host: str
    sites: Sites
    place: Place | None

    async def heed(self, event: str, info: dict[str, Any]) -> None:
        """Have the exchange counted there. Raises Crowded, and closes the connection."""
        if event != "connection.connect_tcp.complete":
            return
        stream = info["return_value"]
        site = site_of(stream.get_extra_info("server_addr")[0])
        self.sites.learn(self.host, site)
        try:
            if self.place is not None:
                self.place.move(site)
        except Crowded:
            await stream.aclose()
            raise


def _is_to_verify(origin: WebOrigin, link: HostLink) -> bool:
    if link.skip_verify:
        return False
    # Who may lead to loopback is there itself, mostly without a certificate that could be verified.
    return not origin.is_loopback or bool(link.authorities)


def _patience(request: Request, settings: RegistrySettings) -> dict[str, float | None]:
    """Return the seconds for the answer to a body, which a registry may have to hash and to move before."""
    return {} if request.body is None else {"read": max(settings.commit_timeout, settings.idle_timeout)}


def _context(route: _Route) -> ssl.SSLContext:
    return context(route.certificates, route.link, verify=route.verify, own=route.shows_itself)


def _new_pool(route: _Route) -> httpx.AsyncBaseTransport:
    ssl_context = _context(route) if route.tls else plain_context()
    if route.proxy is None:
        return DirectPool(ssl_context, Gate(route.reach))
    try:
        _ = urlsplit(route.proxy).port  # httpx does not mind one that cannot be
        return httpx.AsyncHTTPTransport(
            verify=ssl_context,
            proxy=route.proxy,
            trust_env=False,  # proxies are decided by `_route`
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=30),
        )
    except (ValueError, ImportError, httpx.InvalidURL) as exc:
        raise InvalidSettings(
            f"proxy {redact(route.proxy)!r} cannot be used: {type(exc).__name__} (expected http://host:port)"
        ) from None


def _silence_libraries() -> None:
    """Keep request lines with presigned URLs, and headers with tokens, out of every log."""
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
