"""Ask a registry until it gives an answer that counts: scheme, places, retries, pauses, authentication.

Between `layerfs.registry.client`, which says what to ask, and the transport, which asks once.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import trio

from layerfs.errors import RegistryError, RegistryTimeout, Unreachable
from layerfs.registry import retry
from layerfs.registry.auth import Authenticator, Grant
from layerfs.registry.challenge import Challenge, parse_challenges
from layerfs.registry.endpoint import Endpoint, WebOrigin, endpoints
from layerfs.registry.failures import is_hopeless
from layerfs.registry.keychain import Keychain
from layerfs.registry.pace import Pace
from layerfs.registry.places import Crowded, Place, Places
from layerfs.registry.problem import Problem, without_secrets
from layerfs.registry.ranges import ALL, Range
from layerfs.registry.redirects import Request
from layerfs.registry.reply import Reply
from layerfs.registry.settings import RegistrySettings
from layerfs.registry.token import MAX_TOKEN_BODY
from layerfs.registry.transport import Transport

_log = logging.getLogger("layerfs.registry")
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')
_MOST_WARNINGS: Final = 20
_SUCCESS: Final = frozenset({200})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What to ask a registry for."""

    what: str
    """For messages: ``manifest docker.io/library/alpine:3.20``."""
    registry: str
    repository: str
    path: str
    method: str = "GET"
    accept: str = "*/*"
    range: Range = ALL
    limit: int | None = None
    """Read the body, at most so many bytes, before returning; one that breaks off is asked for again."""
    statuses: frozenset[int] = _SUCCESS
    """Which answers to return; others become errors. Empty: all that are not worth a retry."""
    download: bool = False
    """A blob: takes a place among the downloads, not among the requests."""

    def request(self, endpoint: Endpoint, grant: Grant | None) -> Request:
        """Return the HTTP request."""
        return Request(
            method=self.method,
            url=endpoint.url(self.path),
            accept=self.accept,
            range=self.range,
            authorization=None if grant is None else grant.authorization,
            insecure=endpoint.insecure,
        )


def ping_call(registry: str) -> Call:
    """Return the call that only asks whether we are let in (distribution-spec, end-1)."""
    return Call(what=f"registry {registry}", registry=registry, repository="", path="/v2/")


@dataclass(slots=True)
class _Registry:
    """What is known of one registry while the client lives."""

    endpoints: tuple[Endpoint, ...]
    answered: Endpoint | None = None
    paused_until: float = 0.0
    """trio time; set by a Retry-After, for all requests to this registry."""
    challenges: tuple[Challenge, ...] = ()
    """From its /v2/, asked only where a 401 says nothing."""
    warnings: set[str] = field(default_factory=set)

    @property
    def endpoint(self) -> Endpoint:
        """The one that answers, or the first to try."""
        return self.answered or self.endpoints[0]

    def spoke(self, reply: Reply) -> bool:
        """Say whether an answer is the registry's own. What it redirects to speaks for itself alone."""
        return reply.request.origin == self.endpoint.origin

    def challenges_of(self, reply: Reply) -> tuple[Challenge, ...]:
        """Return how the registry wants to be asked, as *reply* says; another server has no say in that."""
        return parse_challenges(reply.header_list("www-authenticate")) if self.spoke(reply) else ()

    def error(self, what: str, reply: Reply, problem: Problem, grant: Grant | None) -> RegistryError:
        """Return the error for *reply*, whose body is *problem*."""
        name = self.endpoint.registry
        if not self.spoke(reply):
            return problem.error_of_other(what, str(reply.request.origin), name)
        return problem.error(what, name, grant.login if grant else "no credentials")


class Requester:
    """Sends calls. Holds the limits per site."""

    def __init__(self, settings: RegistrySettings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self._requests = Places(settings.requests_per_site, transport.sites)
        self._downloads = Places(settings.downloads_per_site, transport.sites)
        self._registries: dict[str, _Registry] = {}
        self._auth = Authenticator(self._ask_for_token, Keychain(settings))

    async def open(self, call: Call) -> Reply:
        """Return an answer with one of the call's statuses; the caller closes it.

        Raises NotFound, Denied, RateLimited, Unreachable, RegistryTimeout or RegistryMisbehaved.
        """
        registry = self._registry(call.registry)
        grant = await self._auth.current(registry.endpoint, call.repository)
        answers = 0
        while True:
            reply = await self._persist(call, registry, grant)
            challenges = registry.challenges_of(reply)
            wider = any(challenge.wants_more_scope for challenge in challenges)
            if registry.spoke(reply) and (reply.status == 401 or (reply.status == 403 and wider)):
                problem = await reply.problem()
                if answers > wider:  # a second answer only to a wish for more rights
                    raise registry.error(call.what, reply, problem, grant)
                challenges = challenges or await self._ping(registry)
                grant = await self._auth.answer(registry.endpoint, call.repository, challenges, grant)
                answers += 1
            elif not call.statuses or reply.status in call.statuses:
                return reply
            else:
                raise registry.error(call.what, reply, await reply.problem(), grant)

    def pace(self) -> Pace:
        """Return a judge of how fast one body has to come."""
        return Pace(self._settings.least_throughput, self._settings.idle_timeout)

    async def open_foreign(self, request: Request, what: str, registry: str) -> Reply:
        """Return the answer of a server that is no registry, with retries and in a place where it is."""
        known = self._registry(registry)
        request = replace(request, reach=await self._transport.reach_from(known.endpoint.origin))
        exchange = partial(self._exchange, request, what, None)
        ask = partial(self._in_place, self._downloads, request.origin, exchange)

        return await self._retrying(ask, lambda _, problem: problem.error(what, str(request.origin)))

    async def _persist(self, call: Call, registry: _Registry, grant: Grant | None) -> Reply:
        def explain(reply: Reply, problem: Problem) -> RegistryError:
            return registry.error(call.what, reply, problem, grant)

        async def ask() -> Reply:
            while registry.paused_until > trio.current_time():  # noqa: ASYNC110 - others may prolong it
                await trio.sleep_until(registry.paused_until)
            reply = await self._in_place(
                self._downloads if call.download else self._requests,
                registry.endpoint.origin,
                lambda place: self._find_and_send(call, registry, grant, place),
            )
            if registry.spoke(reply):
                self._show_warnings(reply, registry)
            return reply

        return await self._retrying(ask, explain, registry)

    async def _retrying(
        self,
        ask: Callable[[], Awaitable[Reply]],
        explain: Callable[[Reply, Problem], RegistryError],
        registry: _Registry | None = None,
    ) -> Reply:
        """Ask until an answer comes that is not worth a retry."""
        began = trio.current_time()
        attempt = 0
        while True:
            attempt += 1
            wish = None
            error: RegistryError
            try:
                reply = await ask()
            except (Unreachable, RegistryTimeout) as exc:
                error = exc
            else:
                if reply.status not in retry.STATUSES or _says_no_more(reply):
                    return reply
                wish = retry.parse_retry_after(reply.headers.get("retry-after"))
                error = explain(reply, await reply.problem())
                if registry is not None and not registry.spoke(reply):
                    registry = None  # storage may ask for a pause of itself alone
            delay = self._settings.retry.delay(attempt, trio.current_time() - began, wish)
            if delay is None or is_hopeless(error):
                raise error
            _log.info("%s; asking again in %.1f s", error, delay)
            if wish is not None and registry is not None:
                registry.paused_until = max(registry.paused_until, trio.current_time() + wish)
            await trio.sleep(delay)

    async def _find_and_send(
        self, call: Call, registry: _Registry, grant: Grant | None, place: Place
    ) -> Reply:
        """Send to the endpoint that answered last; else find out which one answers."""
        refusal: Reply | None = None
        errors: list[RegistryError] = []
        for endpoint in (registry.answered,) if registry.answered else registry.endpoints:
            try:
                reply = await self._exchange(call.request(endpoint, grant), call.what, call.limit, place)
            except (Unreachable, RegistryTimeout) as exc:
                errors.append(exc)
                continue
            if reply.status == 400 and endpoint.origin.scheme == "http" and len(registry.endpoints) > 1:
                await reply.problem()  # what servers with TLS answer to a request without
                refusal = reply
                continue
            registry.answered = endpoint
            return reply
        registry.answered = None  # next time all are tried: it may have come back with or without TLS
        if refusal is not None:
            return refusal
        raise errors[0]

    async def _exchange(self, request: Request, what: str, limit: int | None, place: Place) -> Reply:
        """Send; with a *limit* also read the body of a success; all within the time for documents."""
        timeout = self._settings.document_timeout
        with trio.move_on_after(timeout):
            reply = await self._transport.open(request, what, place)
            try:
                if request.method == "HEAD":  # the end of the nothing that it sends must be read
                    limit = 0
                if limit is not None and (reply.status == 200 or limit == 0):
                    await reply.read(limit, what)
            except BaseException:
                await reply.aclose()
                raise
            return reply
        raise RegistryTimeout(f"{what}: not complete after {timeout:.0f} s; try again later")

    async def _in_place(
        self, places: Places, origin: WebOrigin, ask: Callable[[Place], Awaitable[Reply]]
    ) -> Reply:
        while True:
            place = await places.take(origin.host)
            try:
                reply = await ask(place)
            except Crowded:  # now it is known where it has to wait
                place.release()
            except BaseException:
                place.release()
                raise
            else:
                reply.on_close = place.release
                return reply

    async def _ask_for_token(self, request: Request, what: str, endpoint: Endpoint) -> Reply:
        if request.origin != endpoint.origin:
            request = replace(request, reach=await self._transport.reach_from(endpoint.origin))
        exchange = partial(self._exchange, request, what, MAX_TOKEN_BODY)
        ask = partial(self._in_place, self._requests, request.origin, exchange)

        return await self._retrying(ask, lambda _, problem: problem.error(what, str(request.origin)))

    async def site(self, name: str) -> str:
        """Return where the registry *name* is, as soon as there is a connection."""
        return await self._transport.sites.known(self._registry(name).endpoint.origin.host)

    async def _ping(self, registry: _Registry) -> tuple[Challenge, ...]:
        """Ask /v2/ what it wants: gcr.io sends 401 without WWW-Authenticate to other requests."""
        if not registry.challenges:
            reply = await self._persist(ping_call(registry.endpoint.registry), registry, None)
            await reply.problem()
            registry.challenges = registry.challenges_of(reply)
        return registry.challenges

    def _show_warnings(self, reply: Reply, registry: _Registry) -> None:
        """Log each text of a ``Warning: 299`` once (distribution-spec, "Warnings")."""
        for text in _WARNING.findall(", ".join(reply.header_list("warning"))):
            if text not in registry.warnings and len(registry.warnings) < _MOST_WARNINGS:
                registry.warnings.add(text)
                shown = without_secrets(text, reply.request.secrets())
                _log.warning("%s warns: %s", registry.endpoint.registry, shown)

    def _registry(self, name: str) -> _Registry:
        if name not in self._registries:
            self._registries[name] = _Registry(endpoints(name, self._settings.insecure))
        return self._registries[name]


def _says_no_more(reply: Reply) -> bool:
    """Say whether the request may be one that the server does not know: HEAD is answered with 5xx then."""
    return reply.request.method == "HEAD" and reply.status >= 500
