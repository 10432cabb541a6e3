"""Ask a registry until it gives an answer that counts: its hosts in order, pauses, authentication.

`layerfs.registry.client` says what to ask; `layerfs.registry.attempts` sends, and sends again.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
import trio

from layerfs.errors import RegistryError, RegistryMisbehaved
from layerfs.registry.attempts import NoAnswer, Outcome, Sender
from layerfs.registry.auth import Authenticator, Grant
from layerfs.registry.body import Body
from layerfs.registry.challenge import Challenge
from layerfs.registry.hosts import Greeting, Host, Target, UploadsOf, asks_next, hosts
from layerfs.registry.keychain import Keychain
from layerfs.registry.pace import Pace
from layerfs.registry.places import Crowded, Places
from layerfs.registry.problem import Problem, without_secrets
from layerfs.registry.ranges import ALL, Range
from layerfs.registry.redirects import Request
from layerfs.registry.reply import Reply
from layerfs.registry.settings import RegistrySettings
from layerfs.registry.speakers import challenges_of, explained, spoke
from layerfs.registry.token import MAX_TOKEN_BODY, RepositoryRights
from layerfs.registry.transport import Transport
from layerfs.registry.weborigin import WebOrigin

_log = logging.getLogger("layerfs.registry")
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')
_MOST_WARNINGS: Final = 20
_SUCCESS: Final = frozenset({200})


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask a registry for."""

    what: str
    """For messages: ``manifest docker.io/library/alpine:3.20``."""
    target: Target
    method: str = "GET"
    accept: str = "*/*"
    range: Range = ALL
    limit: int | None = None
    """Read the body, at most so many bytes, before returning; one that breaks off is asked for again."""
    statuses: frozenset[int] = _SUCCESS
    """Which answers to return; others become errors. Empty: all that are not worth a retry."""
    download: bool = False
    """A blob: takes a place among the downloads, not among the requests."""
    spare: bool = False
    """Waits for no place: there is other work, which it stands beside."""
    actions: str = "pull"
    """The rights to the repository that it needs."""
    body: Body | None = None

    @property
    def registry(self) -> str:
        """The registry that is meant, whichever host is asked."""
        return self.target.registry if isinstance(self.target, Greeting) else self.target.repository.registry

    @property
    def rights(self) -> RepositoryRights:
        """The rights that it needs."""
        if isinstance(self.target, Greeting):
            return RepositoryRights()
        source = self.target.source if isinstance(self.target, UploadsOf) else None
        return RepositoryRights(self.target.repository.path, self.actions, source.path if source else "")

    def request(self, host: Host, grant: Grant | None) -> Request:
        """Return the HTTP request."""
        return Request(
            method=self.method,
            url=host.url(self.target),
            accept=self.accept,
            range=self.range,
            authorization=None if grant is None else grant.authorization,
            insecure=host.insecure,
            body=self.body,
            kind=host.kind,
        )


class _Registry(msgspec.Struct):
    """What is known of one registry while the client lives."""

    hosts: tuple[Host, ...]
    passed_over: set[Host] = msgspec.field(default_factory=set)
    """Hosts that did not answer for the registry when another did."""
    paused_until: float = 0.0
    """trio time; set by a Retry-After, for all requests to this registry."""
    challenges: dict[Host, tuple[Challenge, ...]] = msgspec.field(default_factory=dict)
    """What each host answers at /v2/, where it is asked only if a 401 says nothing."""
    warnings: set[str] = msgspec.field(default_factory=set)

    @property
    def to_ask(self) -> list[Host]:
        """The hosts to try, in this order; never empty."""
        return [host for host in self.hosts if host not in self.passed_over]

    def choose(self, outcomes: Mapping[Host, Outcome]) -> Outcome:
        """Return the outcome that counts, of the hosts tried in this order, and remember whose it is."""
        answering = [host for host, outcome in outcomes.items() if outcome.status is not None]
        if not answering:
            self.passed_over.clear()  # next time all are tried: one may have come back with or without TLS
            return next(iter(outcomes.values()))
        self.passed_over |= outcomes.keys()
        self.passed_over.discard(answering[-1])
        return outcomes[answering[-1]]

    async def end_of_pause(self) -> None:
        """Wait as long as the registry has asked to be left alone."""
        while self.paused_until > trio.current_time():  # noqa: ASYNC110 - others may prolong it
            await trio.sleep_until(self.paused_until)


class Requester:
    """Sends calls. Holds the limits per site."""

    def __init__(self, settings: RegistrySettings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self._sender = Sender(settings, transport)
        self._requests = Places(settings.requests_per_site, transport.sites)
        self._downloads = Places(settings.downloads_per_site, transport.sites)
        self._registries: dict[str, _Registry] = {}
        self._auth = Authenticator(self._ask_for_token, Keychain(settings))

    async def open(self, call: Call) -> Reply:
        """Return an answer with one of the call's statuses; the caller closes it.

        Raises NotFound, Denied, RateLimited, Unreachable, RegistryTimeout or RegistryMisbehaved.
        """
        registry = self._registry(call.registry)
        return await self._sender.persist(lambda: self._ask(call, registry))

    async def open_spare(self, call: Call) -> Reply | None:
        """Return the one answer to *call*, which is not sent again; None if no place is free for it.

        Raises as `open`.
        """
        try:
            outcome = await self._ask(
                msgspec.structs.replace(call, spare=True), self._registry(call.registry)
            )
        except Crowded:
            return None
        if isinstance(outcome, NoAnswer):
            raise outcome.error
        return outcome

    async def persist(self, attempt: Callable[[], Awaitable[Outcome]]) -> Reply:
        """Repeat *attempt*, which may be several calls, until an answer comes. Raises as `open`."""
        return await self._sender.persist(attempt)

    async def send(self, call: Call, url: str) -> Outcome:
        """Send *call* once to *url*, which an answer for the registry has named.

        Rights are shown there only if it is the registry's own, others that it then demands once, too: those
        that an upload began with may have ended. Raises Denied, RegistryMisbehaved.
        """
        registry = self._registry(call.registry)
        origin = WebOrigin.of(url)
        host = next((one for one in registry.hosts if one.origin == origin), None)
        grant = None
        if host is not None:
            grant = await self._auth.current(host, call.rights)
            request = call.request(host, grant)
        else:
            home = registry.to_ask[0]
            if home.origin.scheme == "https" and origin.scheme != "https" and not home.insecure:
                raise RegistryMisbehaved(
                    f"{call.what}: {home.registry} wants it sent without TLS to {origin}; not sent "
                    "(name the registry insecure if that is intended)"
                )
            request = call.request(home, None)
            request = msgspec.structs.replace(request, reach=await self._transport.reach_from(home.origin))
        request = msgspec.structs.replace(request, url=url)
        explain = explained(call.what, host or registry.to_ask[0], grant)
        outcome = await self._sender.attempt(request, call.what, self._downloads, explain)
        if host and grant and isinstance(outcome, Reply) and outcome.status == 401 and spoke(outcome, host):
            await outcome.problem()
            challenges = challenges_of(outcome, host) or await self._ping(host, registry)
            grant = await self._auth.answer(host, call.rights, challenges, grant)
            request = msgspec.structs.replace(call.request(host, grant), url=url)
            explain = explained(call.what, host, grant)
            outcome = await self._sender.attempt(request, call.what, self._downloads, explain)
        if isinstance(outcome, NoAnswer) or outcome.status in call.statuses:
            return outcome
        return await NoAnswer.of(outcome, explain)

    def pace(self) -> Pace:
        """Return a judge of how fast one body has to come."""
        return Pace(self._settings.least_throughput, self._settings.idle_timeout)

    async def site(self, name: str) -> str:
        """Return where the registry *name* is, as soon as there is a connection."""
        return await self._transport.sites.known(self._registry(name).to_ask[0].origin.host)

    async def open_foreign(self, request: Request, what: str, registry: str) -> Reply:
        """Return the answer of a server that is no registry, with retries and in a place where it is."""
        origin = self._registry(registry).to_ask[0].origin
        request = msgspec.structs.replace(request, reach=await self._transport.reach_from(origin))
        return await self._ask_server(request, what, self._downloads)

    async def _ask_for_token(self, request: Request, what: str, host: Host) -> Reply:
        if request.origin != host.origin:
            request = msgspec.structs.replace(request, reach=await self._transport.reach_from(host.origin))
        return await self._ask_server(request, what, self._requests, MAX_TOKEN_BODY)

    async def _ask_server(
        self, request: Request, what: str, places: Places, limit: int | None = None
    ) -> Reply:
        def explain(_: Reply, problem: Problem) -> RegistryError:
            return problem.error(what, str(request.origin))

        return await self._sender.persist(lambda: self._sender.attempt(request, what, places, explain, limit))

    async def _ask(self, call: Call, registry: _Registry) -> Outcome:
        """Ask one host after another, until one answers for the registry."""
        outcomes: dict[Host, Outcome] = {}
        for host in registry.to_ask:
            outcome = outcomes[host] = await self._ask_host(call, host, registry)
            if not asks_next(host, outcome.status):
                break
            if isinstance(outcome, Reply):
                await outcome.problem()
        return registry.choose(outcomes)

    async def _ask_host(self, call: Call, host: Host, registry: _Registry) -> Outcome:
        """Ask with what rights there are, and again with those that the answer demands."""
        places = self._downloads if call.download else self._requests
        grant = await self._auth.current(host, call.rights)
        grants = 0
        while True:
            await registry.end_of_pause()
            request, explain = call.request(host, grant), explained(call.what, host, grant)
            outcome = await self._sender.attempt(
                request, call.what, places, explain, call.limit, spare=call.spare
            )
            self._heed(outcome, host, registry)
            if isinstance(outcome, NoAnswer):
                return outcome
            challenges = challenges_of(outcome, host)
            wider = any(challenge.wants_more_scope for challenge in challenges)
            demands = spoke(outcome, host) and (outcome.status == 401 or (outcome.status == 403 and wider))
            if not demands and (not call.statuses or outcome.status in call.statuses):
                return outcome
            failure = await NoAnswer.of(outcome, explain)
            if not demands or grants == (2 if wider else 1):  # a second one only to a wish for more rights
                return failure
            challenges = challenges or await self._ping(host, registry)
            grant = await self._auth.answer(host, call.rights, challenges, grant)
            grants += 1

    async def _ping(self, host: Host, registry: _Registry) -> tuple[Challenge, ...]:
        """Ask /v2/ what it wants: gcr.io sends 401 without WWW-Authenticate to other requests."""
        if not registry.challenges.get(host):
            request = Request("GET", host.url(Greeting(host.registry)), insecure=host.insecure)
            reply = await self._ask_server(request, f"registry {host.registry}", self._requests)
            await reply.problem()
            registry.challenges[host] = challenges_of(reply, host)
        return registry.challenges[host]

    def _heed(self, outcome: Outcome, host: Host, registry: _Registry) -> None:
        """Pause as the registry wishes, and show its warnings; storage has no say over the registry."""
        reply = outcome.reply if isinstance(outcome, NoAnswer) else outcome
        if reply is None or not spoke(reply, host):
            return
        self._show_warnings(reply, registry)
        wish = outcome.wish if isinstance(outcome, NoAnswer) else None
        if wish is not None and wish <= self._settings.retry.longest_wish:
            registry.paused_until = max(registry.paused_until, trio.current_time() + wish)

    def _show_warnings(self, reply: Reply, registry: _Registry) -> None:
        """Log each text of a ``Warning: 299`` once (distribution-spec, "Warnings")."""
        for text in _WARNING.findall(", ".join(reply.header_list("warning"))):
            if text not in registry.warnings and len(registry.warnings) < _MOST_WARNINGS:
                registry.warnings.add(text)
                shown = without_secrets(text, reply.request.secrets())
                _log.warning("%s warns: %s", registry.hosts[0].registry, shown)

    def _registry(self, name: str) -> _Registry:
        if name not in self._registries:
            self._registries[name] = _Registry(
                hosts(name, self._settings.insecure, self._settings.tls_verify)
            )
        return self._registries[name]
