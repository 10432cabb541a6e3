"""Ask a registry until it gives an answer that counts: its hosts in order, pauses, authentication.

`layerfs.registry.client` says what to ask; `layerfs.registry.attempts` sends, and sends again.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import trio

from layerfs.errors import RegistryError, RegistryMisbehaved, VerificationError
from layerfs.oci import Digest, Repository
from layerfs.registry.attempts import NoAnswer, Outcome, Sender
from layerfs.registry.auth import Authenticator, Grant
from layerfs.registry.calls import Call
from layerfs.registry.challenge import Challenge
from layerfs.registry.hosts import BlobOf, Greeting, Host, Target, asks_next
from layerfs.registry.keychain import Keychain
from layerfs.registry.mirrors.endpoints import Endpoint, endpoints, possible_hosts
from layerfs.registry.pace import Pace
from layerfs.registry.places import Crowded, Places
from layerfs.registry.problem import Problem, without_secrets
from layerfs.registry.redirects import Request
from layerfs.registry.reply import Reply
from layerfs.registry.rounds import Round
from layerfs.registry.servers import KnownServer
from layerfs.registry.settings import RegistrySettings
from layerfs.registry.speakers import challenges_of, explained, spoke
from layerfs.registry.token import MAX_TOKEN_BODY
from layerfs.registry.transport import Transport
from layerfs.registry.weborigin import WebOrigin
from layerfs.registry.witnesses import Witnesses

_log = logging.getLogger("layerfs.registry")
_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')
_MOST_WARNINGS: Final = 20


class Requester:
    """Sends calls. Holds the limits per site."""

    def __init__(self, settings: RegistrySettings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        self._sender = Sender(settings, transport)
        self._requests = Places(settings.requests_per_site, transport.sites)
        self._downloads = Places(settings.downloads_per_site, transport.sites)
        self._policy: Final = settings.policy
        self._servers: dict[tuple[Host, ...], KnownServer] = {}
        self._witnesses = Witnesses()
        self._auth = Authenticator(self._ask_for_token, Keychain(settings))

    async def open(self, call: Call) -> Reply:
        """Return an answer with one of the call's statuses; the caller closes it.

        Raises NotFound, Denied, RateLimited, Unreachable, RegistryTimeout or RegistryMisbehaved, and what the
        call's check raises.
        """
        attempt = self._round(call)
        return await self._sender.persist(lambda: self._ask(call, attempt))

    async def open_spare(self, call: Call) -> Reply | None:
        """Return the one answer to *call*, which is not sent again; None if no place is free for it.

        Raises as `open`.
        """
        try:
            outcome = await self._ask(msgspec.structs.replace(call, spare=True), self._round(call))
        except Crowded:
            return None
        if isinstance(outcome, NoAnswer):
            raise outcome.error
        return outcome

    async def persist(self, attempt: Callable[[], Awaitable[Outcome]]) -> Reply:
        """Repeat *attempt*, which may be several calls, until an answer comes. Raises as `open`."""
        return await self._sender.persist(attempt)

    def doubt(self, repository: Repository, digest: Digest, *, proven: bool) -> bool:
        """Ask those no more for a blob who have given other bytes; say whether others can be asked.

        Who is *proven* wrong is left alone for a while: an image alone must not bring that about.
        """
        found = endpoints(self._policy, BlobOf(repository, digest))
        served, left = self._witnesses.doubt((repository, digest), found)
        for endpoint in served if proven else ():
            self._server(endpoint).rest()
        return left

    async def send(self, call: Call, url: str) -> Outcome:
        """Send *call* once to *url*, which an answer for the registry has named.

        Rights are shown there only if it is the registry's own, others that it then demands once, too: those
        that an upload began with may have ended. Raises Denied, RegistryMisbehaved.
        """
        (endpoint,) = endpoints(self._policy, call.target, writes=True)
        server = self._server(endpoint)
        origin = WebOrigin.of(url)
        host = next((one for one in server.hosts if one.origin == origin), None)
        grant = None
        if host is not None:
            grant = await self._auth.current(host, call.rights(host))
            request = call.request(host, _authorization(grant))
        else:
            home = server.to_ask[0]
            if home.origin.scheme == "https" and origin.scheme != "https" and not home.insecure:
                raise RegistryMisbehaved(
                    f"{call.what}: {home.registry} wants it sent without TLS to {origin}; not sent "
                    "(name the registry insecure if that is intended)"
                )
            request = call.request(home, None)
            request = msgspec.structs.replace(request, reach=await self._transport.reach_from(home.origin))
        request = msgspec.structs.replace(request, url=url)
        explain = explained(call.what, host or server.to_ask[0], grant)
        outcome = await self._sender.attempt(request, call.what, self._downloads, explain)
        if host and grant and isinstance(outcome, Reply) and outcome.status == 401 and spoke(outcome, host):
            await outcome.problem()
            challenges = challenges_of(outcome, host) or await self._ping(host, server)
            grant = await self._auth.answer(host, call.rights(host), challenges, grant)
            request = msgspec.structs.replace(call.request(host, _authorization(grant)), url=url)
            explain = explained(call.what, host, grant)
            outcome = await self._sender.attempt(request, call.what, self._downloads, explain)
        if isinstance(outcome, NoAnswer) or outcome.status in call.statuses:
            return outcome
        return await NoAnswer.of(outcome, explain)

    def asks_alike(self, one: Target, other: Target) -> bool:
        """Say whether the same servers are asked for both, in the same order. Raises as `endpoints`."""
        return endpoints(self._policy, one) == endpoints(self._policy, other)

    def pace(self) -> Pace:
        """Return a judge of how fast one body has to come."""
        return Pace(self._settings.least_throughput, self._settings.idle_timeout)

    async def site(self, name: str) -> str:
        """Return where the registry *name* is, or a mirror of it: where there is a connection first."""
        return await self._transport.sites.known(possible_hosts(self._policy, name))

    async def open_foreign(self, request: Request, what: str, registry: str) -> Reply:
        """Return the answer of a server that is no registry, with retries and in a place where it is."""
        (home,) = endpoints(self._policy, Greeting(registry))
        origin = self._server(home).to_ask[0].origin
        request = msgspec.structs.replace(request, reach=await self._transport.reach_from(origin))
        return await self._ask_server(request, what, self._downloads)

    def _round(self, call: Call) -> Round:
        found = endpoints(self._policy, call.target, writes=call.writes)
        return Round(self._witnesses.trusted(call.content, found))

    async def _ask_for_token(self, request: Request, what: str, host: Host) -> Reply:
        if request.origin == host.origin:
            request = msgspec.structs.replace(request, more=host.headers, link=host.link)
        else:
            request = msgspec.structs.replace(request, reach=await self._transport.reach_from(host.origin))
        return await self._ask_server(request, what, self._requests, MAX_TOKEN_BODY)

    async def _ask_server(
        self, request: Request, what: str, places: Places, limit: int | None = None
    ) -> Reply:
        def explain(_: Reply, problem: Problem) -> RegistryError:
            return problem.error(what, str(request.origin))

        return await self._sender.persist(lambda: self._sender.attempt(request, what, places, explain, limit))

    async def _ask(self, call: Call, attempt: Round) -> Outcome:
        """Ask one server after another, until one has it."""
        for endpoint in attempt.to_ask():
            server = self._server(endpoint)
            others = attempt.has_others(endpoint)
            if others and (seconds := server.left_alone):
                attempt.left_alone(endpoint, seconds)
                continue
            outcome = await self._ask_endpoint(call, endpoint, others=len(attempt.endpoints) > 1)
            if isinstance(outcome, Reply) and others and outcome.status == 404:
                outcome = await NoAnswer.of(outcome, explained(call.what, server.to_ask[0], None))
            if isinstance(outcome, Reply):
                if call.content is not None:
                    self._witnesses.served(call.content, endpoint)
                return outcome
            attempt.failed(endpoint, outcome)
            if others:
                _log.info("%s; asking the next", outcome.error)
                if endpoint.kind == "mirror":
                    self._transport.traffic.fell_back()
        return attempt.result

    async def _ask_endpoint(self, call: Call, endpoint: Endpoint, *, others: bool) -> Outcome:
        """Ask one server; where there are *others* no error of it ends the call."""
        server = self._server(endpoint)
        try:
            outcome = await self._ask_hosts(call, server)
            if isinstance(outcome, Reply) and call.check is not None and outcome.status == 200:
                call.check(await outcome.read(call.limit or 0, call.what))
        except VerificationError as exc:
            if others:
                server.rest()
            return NoAnswer(exc, trio.current_time(), final=True)
        except RegistryError as exc:
            if not others:
                raise
            return NoAnswer(exc, trio.current_time(), final=True)
        return outcome

    async def _ask_hosts(self, call: Call, server: KnownServer) -> Outcome:
        """Ask with TLS or without, until there is an answer of the server."""
        outcomes: dict[Host, Outcome] = {}
        for host in server.to_ask:
            outcome = outcomes[host] = await self._ask_host(call, host, server)
            if not asks_next(host, outcome.status):
                break
            if isinstance(outcome, Reply):
                await outcome.problem()
        return server.choose(outcomes)

    async def _ask_host(self, call: Call, host: Host, server: KnownServer) -> Outcome:
        """Ask with what rights there are, and again with those that the answer demands."""
        places = self._downloads if call.download else self._requests
        grant = await self._auth.current(host, call.rights(host))
        grants = 0
        while True:
            await server.end_of_pause()
            request, explain = call.request(host, _authorization(grant)), explained(call.what, host, grant)
            outcome = await self._sender.attempt(
                request, call.what, places, explain, call.limit, spare=call.spare
            )
            self._heed(outcome, host, server)
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
            challenges = challenges or await self._ping(host, server)
            grant = await self._auth.answer(host, call.rights(host), challenges, grant)
            grants += 1

    async def _ping(self, host: Host, server: KnownServer) -> tuple[Challenge, ...]:
        """Ask /v2/ what it wants: gcr.io sends 401 without WWW-Authenticate to other requests."""
        if not server.challenges.get(host):
            request = Request(
                "GET",
                host.url(Greeting(host.registry)),
                insecure=host.insecure,
                more=host.headers,
                link=host.link,
            )
            reply = await self._ask_server(request, f"registry {host.name}", self._requests)
            await reply.problem()
            server.challenges[host] = challenges_of(reply, host)
        return server.challenges[host]

    def _heed(self, outcome: Outcome, host: Host, server: KnownServer) -> None:
        """Pause as the registry wishes, and show its warnings; storage has no say over the registry."""
        reply = outcome.reply if isinstance(outcome, NoAnswer) else outcome
        if reply is None or not spoke(reply, host):
            return
        self._show_warnings(reply, server)
        wish = outcome.wish if isinstance(outcome, NoAnswer) else None
        if wish is not None and wish <= self._settings.retry.longest_wish:
            server.paused_until = max(server.paused_until, trio.current_time() + wish)

    def _show_warnings(self, reply: Reply, server: KnownServer) -> None:
        """Log each text of a ``Warning: 299`` once (distribution-spec, "Warnings")."""
        for text in _WARNING.findall(", ".join(reply.header_list("warning"))):
            if text not in server.warnings and len(server.warnings) < _MOST_WARNINGS:
                server.warnings.add(text)
                shown = without_secrets(text, reply.request.secrets())
                _log.warning("%s warns: %s", server.hosts[0].name, shown)

    def _server(self, endpoint: Endpoint) -> KnownServer:
        if endpoint.hosts not in self._servers:
            self._servers[endpoint.hosts] = KnownServer(endpoint.hosts)
        return self._servers[endpoint.hosts]


def _authorization(grant: Grant | None) -> str | None:
    return None if grant is None else grant.authorization
