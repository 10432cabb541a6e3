"""Keeps what was granted: one token for each repository, asked for once, renewed in time.

Drives the decisions of `layerfs.registry.token`. Many layers are fetched at once, and only one task asks
the token server.
"""

import random
from collections.abc import Awaitable, Callable
from typing import ClassVar, Final

import msgspec
import trio

from layerfs.discreet import Discreet
from layerfs.errors import Denied, RegistryError
from layerfs.flights import SingleFlight
from layerfs.registry.challenge import Challenge
from layerfs.registry.hosts import Host
from layerfs.registry.keychain import Keychain, Lookup
from layerfs.registry.problem import Problem
from layerfs.registry.redirects import Request
from layerfs.registry.reply import Reply
from layerfs.registry.token import (
    MAX_TOKEN_BODY,
    BasicPlan,
    Plan,
    RepositoryRights,
    TokenPlan,
    no_way_in,
    parse_token,
    plan,
    token_request,
)

_RENEWED: Final = (0.7, 0.85)
"""Between these shares of its life a token is renewed, by chance: so many clients do not meet."""
_FOREVER: Final = float("inf")
_MOST_GRANTS: Final = 500
"""More than so many are looked through for those that have ended."""

Ask = Callable[[Request, str, Host], Awaitable[Reply]]
"""Sends a request for a token, with retries and the body read: request, what for, which registry wants it."""


class Grant(Discreet, frozen=True):
    """The right to ask for something; times are trio's."""

    hidden: ClassVar[frozenset[str]] = frozenset({"authorization"})

    authorization: str
    login: str
    """For messages: who was let in."""
    scopes: tuple[str, ...] = ()
    made_at: float = -_FOREVER
    """When the login was looked up that it was had with."""
    renew_at: float = _FOREVER
    ends_at: float = _FOREVER


Key = tuple[Host, RepositoryRights]
"""A host is one for each registry that it stands for: what one of them grants is not shown for another."""


class Authenticator:
    """Hands out grants for (host, rights)."""

    def __init__(self, ask: Ask, keychain: Keychain) -> None:
        self.ask = ask
        self.keychain = keychain
        self._plans: dict[Host, Plan] = {}
        """How each registry wants it, known since its first 401: the next repository needs none."""
        self._grants: dict[Key, Grant] = {}
        self._flights: SingleFlight[Key, Grant] = SingleFlight()
        """A caller asks for itself: when it is cancelled nobody may want the token any more."""

    async def current(self, host: Host, rights: RepositoryRights) -> Grant | None:
        """Return what to send with the first request; None as long as the registry asks for nothing.

        Raises Denied and what `Ask` raises.
        """
        key = (host, rights)
        grant = self._grants.get(key)
        if grant is not None and trio.current_time() < grant.renew_at:
            return grant
        how = self._plans.get(host)
        if how is None:
            return None
        scopes = grant.scopes if grant else rights.scopes
        try:
            return await self._obtain(key, host, how, scopes)
        except RegistryError as exc:
            if grant is not None and trio.current_time() < grant.ends_at:
                return grant  # the old one is still good
            if isinstance(exc, Denied):  # next time ask what it wants: that may have changed
                self._plans.pop(host, None)
            raise

    async def answer(
        self,
        host: Host,
        rights: RepositoryRights,
        challenges: tuple[Challenge, ...],
        used: Grant | None,
    ) -> Grant:
        """Return another grant after *used* was refused.

        Raises Denied if there is no way in, RegistryMisbehaved, and what `Ask` raises.
        """
        key = (host, rights)
        cached = self._grants.get(key)
        if cached is not None and cached is not used:
            return cached  # another task renewed it meanwhile
        self._grants.pop(key, None)
        if used is not None:
            self.keychain.forget(host.stands_for, used.made_at)
        how = plan(challenges, host)
        if how is None:
            raise no_way_in(host.name, challenges)
        self._plans[host] = how
        wider = [challenge.get("scope") for challenge in challenges if challenge.wants_more_scope]
        scopes = tuple(scope for scope in wider if scope) or rights.scopes
        try:
            return await self._obtain(key, host, how, scopes)
        except Denied:
            if isinstance(how, BasicPlan):  # a token may be had without a login later; this may not
                self._plans.pop(host, None)
            raise

    async def _obtain(self, key: Key, host: Host, how: Plan, scopes: tuple[str, ...]) -> Grant:
        async def negotiated() -> Grant:
            grant = await self._negotiate(host, key[1], how, scopes)
            self._keep(key, grant)
            return grant

        return await self._flights.do(key, negotiated)

    def _keep(self, key: Key, grant: Grant) -> None:
        if len(self._grants) >= _MOST_GRANTS:
            now = trio.current_time()
            self._grants = {kept: other for kept, other in self._grants.items() if other.ends_at > now}
        self._grants[key] = grant

    async def _negotiate(
        self, host: Host, rights: RepositoryRights, how: Plan, scopes: tuple[str, ...]
    ) -> Grant:
        found = await self._look_up(host, rights)
        looked_up = trio.current_time()
        try:
            grant = await self._granted(host, rights, how, scopes, found)
        except Denied:
            if not found.is_remembered:
                raise
            # What clouds hand out ends before the token does that was had with it: have another.
            self.keychain.forget(host.stands_for, looked_up)
            found = await self._look_up(host, rights)
            looked_up = trio.current_time()
            grant = await self._granted(host, rights, how, scopes, found)
        return msgspec.structs.replace(grant, made_at=looked_up)

    async def _look_up(self, host: Host, rights: RepositoryRights) -> Lookup:
        given = not host.mirror or host.forwards
        return await self.keychain.find(host.stands_for, rights.repository, given=given)

    async def _granted(
        self, host: Host, rights: RepositoryRights, how: Plan, scopes: tuple[str, ...], found: Lookup
    ) -> Grant:
        if found.credential is not None and found.credential.registry_token:
            return Grant(f"Bearer {found.credential.registry_token}", found.note, scopes)
        if isinstance(how, BasicPlan):
            return _basic(host, found)
        return await self._fetch_token(host, rights.repository, how, scopes, found)

    async def _fetch_token(
        self, host: Host, repository: str, how: TokenPlan, scopes: tuple[str, ...], found: Lookup
    ) -> Grant:
        began = trio.current_time()
        request = token_request(how, scopes, found.credential, insecure=host.insecure)
        what = f"token for {host.name}/{repository}"
        server = str(request.origin)
        reply = await self.ask(request, what, host)
        if reply.status != 200:
            raise _refused(await reply.problem(), what, server, host.stands_for, found.note)
        token = parse_token(await reply.read(MAX_TOKEN_BODY, what), server)
        return Grant(
            authorization=f"Bearer {token.value}",
            login=found.note,
            scopes=scopes,
            renew_at=began + token.life * random.uniform(*_RENEWED),
            ends_at=began + token.life,
        )


def _refused(problem: Problem, what: str, server: str, registry: str, login: str) -> RegistryError:
    """Return the error of a token server; it has nothing that could be "not found"."""
    if problem.status not in (400, 401, 403, 404, 405):
        return problem.error(what, server, login, login_at=registry)
    return Denied(
        f"{what}: {server} gives none, {problem.summary}, used {login}; "
        f"check the name, or log in: layerfs login {registry}"
    )


def _basic(host: Host, found: Lookup) -> Grant:
    if found.credential is None or not found.credential.username:
        raise Denied(
            f"{host.name}: wants user and password, found {found.note}; "
            f"log in: layerfs login {host.stands_for}"
        )
    return Grant(found.credential.basic, found.note)
