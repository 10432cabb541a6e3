"""One request sent once, in a place; and the one policy of when it is sent again. Knows no registry."""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import trio

from layerfs.errors import RegistryError, RegistryTimeout, Unreachable, VerificationError
from layerfs.registry import retry
from layerfs.registry.failures import is_hopeless
from layerfs.registry.places import Crowded, Place, Places
from layerfs.registry.problem import Problem
from layerfs.registry.redirects import Request
from layerfs.registry.reply import Reply
from layerfs.registry.settings import RegistrySettings
from layerfs.registry.transport import Transport

_log = logging.getLogger("layerfs.registry")

Explain = Callable[[Reply, Problem], RegistryError]
"""Returns the error for an answer whose body is that problem."""


class NoAnswer(msgspec.Struct, frozen=True):
    """An attempt that gave no answer of use."""

    error: RegistryError | VerificationError
    began: float
    """When the request was sent, of trio's time."""
    reply: Reply | None = None
    """The answer, read and closed; None if none came."""
    said: str = ""
    """What the answer says in short."""
    final: bool = False
    """Not to be asked again, whatever came."""

    @classmethod
    async def of(cls, reply: Reply, explain: Explain, began: float = math.inf) -> "NoAnswer":
        """Read *reply* as a problem, and close it."""
        problem = await reply.problem()
        return cls(explain(reply, problem), min(began, trio.current_time()), reply, problem.summary)

    @property
    def status(self) -> int | None:
        """The status of the answer; None if none came."""
        return None if self.reply is None else self.reply.status

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed a little later."""
        if self.final:
            return False
        return not is_hopeless(self.error) if self.reply is None else _is_temporary(self.reply)

    @property
    def wish(self) -> float | None:
        """The seconds for which the server wants to be left alone, if it says so."""
        return None if self.reply is None else retry.parse_retry_after(self.reply.headers.get("retry-after"))


Outcome = Reply | NoAnswer


class Sender:
    """Sends requests, each in a place of those that its caller names."""

    def __init__(self, settings: RegistrySettings, transport: Transport) -> None:
        self._policy: Final = settings.retry
        self._timeout: Final = settings.document_timeout
        self._transport: Final = transport

    async def persist(self, attempt: Callable[[], Awaitable[Outcome]]) -> Reply:
        """Repeat *attempt* until an answer comes. Raises the error of a failure that does not pass."""
        number, elapsed = 0, 0.0
        while True:
            number += 1
            outcome = await attempt()
            if isinstance(outcome, Reply):
                return outcome
            if not outcome.may_pass:
                raise outcome.error
            # Waiting for a place, or sending a large body, is no fault of the registry.
            elapsed += trio.current_time() - outcome.began
            delay = self._policy.delay(number, elapsed, outcome.wish)
            if delay is None:
                raise retry.given_up(outcome.error, elapsed, number)
            _log.info("%s; asking again in %.1f s", outcome.error, delay)
            await trio.sleep(delay)
            elapsed += delay

    async def attempt(
        self,
        request: Request,
        what: str,
        places: Places,
        explain: Explain,
        limit: int | None = None,
        *,
        spare: bool = False,
    ) -> Outcome:
        """Send *request* once, in a place that the reply keeps until it is closed.

        With a *limit* the body of a success is read too, at most so many bytes. Raises Denied,
        RegistryMisbehaved, InvalidSettings, with *spare* Crowded, since no place is waited for; the rest of
        what can go wrong is a NoAnswer.
        """
        while True:
            host = request.origin.host
            place = places.take_spare(host) if spare else await places.take(host)
            began = trio.current_time()
            try:
                reply = await self._exchange(request, what, limit, place)
            except Crowded:  # now it is known where it has to wait
                place.release()
                continue
            except (Unreachable, RegistryTimeout) as exc:
                place.release()
                return NoAnswer(exc, _since(began, request))
            except BaseException:
                place.release()
                raise
            reply.on_close = place.release
            return (
                await NoAnswer.of(reply, explain, _since(began, request)) if _is_temporary(reply) else reply
            )

    async def _exchange(self, request: Request, what: str, limit: int | None, place: Place) -> Reply:
        """Send, and read what is to be read at once, all within the time for documents."""
        with trio.move_on_after(self._timeout if request.body is None else math.inf):
            reply = await self._transport.open(request, what, place)
            try:
                if request.method == "HEAD":  # read the empty body, or the connection cannot be reused
                    await reply.read(0, what)
                elif limit is not None and reply.status == 200:
                    await reply.read(limit, what)
            except BaseException:
                await reply.aclose()
                raise
            return reply
        raise RegistryTimeout(f"{what}: not complete after {self._timeout:.0f} s; try again later")


def _since(began: float, request: Request) -> float:
    """Return from when on a failure counts: that bytes are sent for long is no fault of the registry."""
    return began if request.body is None else trio.current_time()


def _is_temporary(reply: Reply) -> bool:
    """Say whether another answer may come later. A 5xx to a HEAD may say that the server knows no HEAD."""
    return reply.status in retry.STATUSES and not (reply.request.method == "HEAD" and reply.status >= 500)
