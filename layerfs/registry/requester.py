"""Ask a registry until it gives an answer that counts: places, retries, pauses.

Between `layerfs.registry.client`, which says what to ask, and the transport, which asks once.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import trio

from layerfs.errors import RegistryError, RegistryTimeout, Unreachable
from layerfs.registry import retry
from layerfs.registry.endpoint import Endpoint
from layerfs.registry.redirects import Request
from layerfs.registry.settings import RegistrySettings
from layerfs.registry.transport import Reply, Transport

_log = logging.getLogger("layerfs.registry")


@dataclass(frozen=True, slots=True)
class Call:
    """What to ask a registry for."""

    what: str
    """For messages: ``manifest docker.io/library/alpine:3.20``."""
    endpoint: Endpoint
    repository: str
    method: str
    url: str
    accept: str = "*/*"
    first_byte: int = 0
    download: bool = False
    """A blob: takes a place among the downloads, not among the requests."""

    def request(self, authorization: str | None) -> Request:
        """Return the HTTP request."""
        return Request(
            method=self.method,
            url=self.url,
            accept=self.accept,
            first_byte=self.first_byte,
            authorization=authorization,
            insecure=self.endpoint.insecure,
        )


@dataclass(slots=True)
class _Registry:
    """What is known of one registry while the client lives."""

    requests: trio.Semaphore
    downloads: trio.Semaphore
    paused_until: float = 0.0
    """trio time; set by a 429, for all requests to this registry."""


@dataclass(slots=True)
class Requester:
    """Sends calls. Holds the limits per registry."""

    settings: RegistrySettings
    transport: Transport
    _registries: dict[str, _Registry] = field(default_factory=dict)

    async def open(self, call: Call) -> Reply:
        """Return the first answer that is not worth a retry; the caller closes it.

        Raises Unreachable, RegistryTimeout, RateLimited, Denied or RegistryMisbehaved.
        """
        began = trio.current_time()
        attempt = 0
        while True:
            attempt += 1
            wish = None
            error: RegistryError
            try:
                reply = await self._open_once(call)
            except (Unreachable, RegistryTimeout) as exc:
                error = exc
            else:
                if reply.status not in retry.STATUSES:
                    return reply
                wish = retry.parse_retry_after(reply.headers.get("retry-after"))
                error = (await reply.problem()).error(call.what, call.endpoint.registry)
            delay = self.settings.retry.delay(attempt, trio.current_time() - began, wish)
            if delay is None:
                raise error
            await self._pause(call, error, delay, everyone=wish is not None)

    async def _pause(self, call: Call, error: RegistryError, delay: float, *, everyone: bool) -> None:
        _log.info("%s; asking again in %.1f s", error, delay)
        if everyone:
            registry = self._registry(call)
            registry.paused_until = max(registry.paused_until, trio.current_time() + delay)
        else:
            await trio.sleep(delay)

    async def _open_once(self, call: Call) -> Reply:
        registry = self._registry(call)
        release = await self._place(registry, call)
        try:
            reply = await self.transport.open(call.request(None), call.what)
        except BaseException:
            release()
            raise
        reply.on_close = release
        return reply

    async def _place(self, registry: _Registry, call: Call) -> Callable[[], None]:
        places = registry.downloads if call.download else registry.requests
        while registry.paused_until > trio.current_time():  # noqa: ASYNC110 - others may prolong the pause
            await trio.sleep_until(registry.paused_until)
        await places.acquire()
        return places.release

    def _registry(self, call: Call) -> _Registry:
        name = call.endpoint.registry
        if name not in self._registries:
            self._registries[name] = _Registry(
                trio.Semaphore(self.settings.requests_per_registry),
                trio.Semaphore(self.settings.downloads_per_registry),
            )
        return self._registries[name]

    async def open_whole(self, call: Call, first_byte: int) -> Reply:
        """Like `open`, from another offset."""
        return await self.open(replace(call, first_byte=first_byte))
