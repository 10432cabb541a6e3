"""The daemon's end of a delegated pull: whose it takes, and what it says to the command meanwhile.

It takes what the command would do in the same way: the same user and rights by the kernel's word, the same
code, the same settings, computed from what the command's environment says by the function that the command
uses, and files of registries, certificates and logins that say what they said when the daemon read them.
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from layerfs.api.machinery import Machinery
from layerfs.app import registries_of
from layerfs.cli.delegating import VERSION
from layerfs.cli.early import is_unknown
from layerfs.cli.failures import told
from layerfs.cli.reread import FilesInForce
from layerfs.cli.screen import Draw
from layerfs.cli.trusted import Consulted, NotClear, pull_environment, pull_settings
from layerfs.delegation import peers, places
from layerfs.delegation.listening import Conversation, Desk
from layerfs.delegation.wire import (
    COMPLAINT,
    DRAWING,
    FOUND_BY,
    NOTE,
    OUTPUT,
    REFUSED,
    TAKEN,
    PullRequest,
    PullWords,
    variables_of,
    wanted,
)
from layerfs.errors import Denied, LayerfsError, Offline, OutOfMemory, RateLimited, WaitRefused, WorkerDied
from layerfs.fetch.tasks import background
from layerfs.flights import ending_with_callers
from layerfs.settings import ROWS

if TYPE_CHECKING:
    from layerfs.cli.resumption import Begun
    from layerfs.fetch.fetcher import Fetcher
    from layerfs.gc.keeper import Keeper
    from layerfs.store import ImageStorage
    from layerfs.supervision import InForce

ELSEWHERE: Final = frozenset(
    {
        "allow_other", "background", "fetch_timeout", "log_file", "log_json", "log_level", "mount_options",
        "poll", "serve", "tag_ttl",
    }
)  # fmt: skip
"""Fields of `Settings` that say nothing of a pull. What registries a mount for others may ask is compared."""
_ALONE: Final = (Denied, Offline, OutOfMemory, RateLimited, WaitRefused, WorkerDied)
"""Errors that a fresh process may not have: by what this one remembers, or does beside."""
_DOWNLOADER: Final = "layerfs.registry"
"""Begins the loggers of the process that downloads, whose lines do not say for whom they are."""

log = logging.getLogger(__name__)
_asker: Final[ContextVar["RelayedScreen | None"]] = ContextVar("who a job is for", default=None)


class _Alone(LayerfsError):
    """The command should do by itself what it asked for."""


class RelayedScreen:
    """The streams of the command that asked."""

    def __init__(self, conversation: Conversation, request: PullRequest) -> None:
        self._conversation = conversation
        self._screen = request.screen

    def say(self, text: str) -> None:
        """Have *text* written to standard output."""
        self._conversation.say(OUTPUT, _raw(text))

    def complain(self, text: str) -> None:
        """Have *text* written to standard error."""
        self._conversation.say(COMPLAINT, _raw(text))

    def fail(self, error: LayerfsError) -> None:
        """Say that something cannot be had, or have the command try."""
        if isinstance(error, _ALONE):
            raise _Alone(str(error))
        self.complain(told(error))

    def columns(self) -> int | None:
        """Return how wide standard output was at the start."""
        return self._screen.columns or None

    def canvas(self) -> tuple[int, int] | None:
        """Return how large standard error is, as far as the command has said so."""
        if not self._screen.width:
            return None
        return self._conversation.size or (self._screen.width, self._screen.height)

    def draws_unicode(self) -> bool:
        """Say what the command's locale has."""
        return self._screen.unicode

    @contextmanager
    def drawing(self) -> Iterator[Draw]:
        """Have lines drawn on standard error."""

        def draw(lines: Sequence[str]) -> None:
            self._conversation.sketch(DRAWING, _raw("\n".join(lines)))

        yield draw
        self._conversation.say(DRAWING)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


class Delegates:
    """Pulls for commands, in a running daemon."""

    def __init__(
        self, storage: "ImageStorage", provider: "Fetcher", keeper: "Keeper", in_force: "InForce"
    ) -> None:
        self._machinery = Machinery(storage, provider, in_force.settings.platform, keeper)
        self._in_force = in_force
        self._files = FilesInForce(in_force)
        self._looking = trio.CapacityLimiter(2)
        self._screens: list[RelayedScreen] = []

    async def attend(self, request: PullRequest, pid: int, conversation: Conversation) -> None:
        """Do what *request* asks for, or say no."""
        asked = wanted(request.words)
        why = "words that only the command can read"
        if asked is not None:
            why = await trio.to_thread.run_sync(
                self._refusal, request, asked, pid, limiter=self._looking, abandon_on_cancel=True
            )
        if asked is None or why:
            log.info("a pull of process %d is its own: %s", pid, why)
            conversation.say(REFUSED, _raw(why))
            await conversation.sent()
            return
        conversation.say(TAKEN)
        log.info("a pull for process %d: %s", pid, " ".join(asked.references)[:1000])
        screen = RelayedScreen(conversation, request)
        with self._speaking_to(screen), ending_with_callers():
            try:
                code = await self._pull(asked, screen, conversation)
            except LayerfsError as exc:
                log.info("a pull of process %d goes on by itself: %s", pid, exc)
                return
        await conversation.end(code)

    async def _pull(self, asked: PullWords, screen: RelayedScreen, conversation: Conversation) -> int:
        from layerfs.cli.pulling import Pull, heal_first
        from layerfs.cli.resumption import Earlier
        from layerfs.cli.several import code_of

        def note(begun: "Begun") -> None:
            conversation.say(NOTE, msgspec.json.encode(begun))

        async def prepare() -> None:
            if await trio.to_thread.run_sync(is_unknown, settings, asked.references):
                await self._in_force.start("extractor")

        settings = self._in_force.settings
        async with background() as nursery:
            nursery.start_soon(self._in_force.start, "downloader")
            nursery.start_soon(prepare)
            await heal_first(self._machinery)
            pull = Pull(self._machinery, settings, asked, screen, Earlier(tell=note))
            return code_of(await pull.each())

    def _refusal(self, request: PullRequest, asked: PullWords, pid: int) -> str:
        """Say why *request* is not taken; empty if it is. Blocking."""
        if request.version != VERSION:
            return f"{request.version[:200]!r} asks (expected {VERSION!r})"
        if why := peers.difference(pid):
            return why
        if names := _differing(request.variables, variables_of(os.environ)):
            return f"other variables: {', '.join(names)}"
        if logging.getLogger().getEffectiveLevel() > logging.WARNING:
            return "warnings would be lost"
        try:
            environ = pull_environment(request.variables)
            settings = pull_settings(environ, asked.options)
            mine = self._in_force.settings
            names = [name for name in _COMPARED if getattr(settings, name) != getattr(mine, name)]
            if names or settings.offline:
                return f"other settings: {', '.join(names) or 'offline'}"
            return self._files.difference(Consulted.of(registries_of(settings, environ), settings, environ))
        except (LayerfsError, NotClear) as exc:
            return str(exc)

    @contextmanager
    def _speaking_to(self, screen: RelayedScreen) -> Iterator[None]:
        """Have what is logged on the way said to the command, as it would be without a daemon."""
        before = _asker.set(screen)
        self._screens.append(screen)
        try:
            yield
        finally:
            self._screens.remove(screen)
            _asker.reset(before)

    def heard_by(self, logger: str) -> list[RelayedScreen]:
        """Return to whom a line matters that *logger* has: to all, if nobody knows to whom."""
        if logger.startswith(_DOWNLOADER):
            return list(self._screens)
        asker = _asker.get()
        return [asker] if asker in self._screens else []


_COMPARED: Final = tuple(sorted({*ROWS, "access", "budgets"} - ELSEWHERE))


def _differing(theirs: Mapping[str, str], mine: Mapping[str, str]) -> list[str]:
    """Return the variables that are not the same, but for those of which only what they mean counts."""
    names = (theirs.keys() | mine.keys()) - {row.variable for row in ROWS.values()} - FOUND_BY
    return sorted(name for name in names if theirs.get(name) != mine.get(name))


class _Telling(logging.Handler):
    """Tells commands what a process writes to standard error that configures no logging: warnings."""

    def __init__(self, delegates: Delegates) -> None:
        super().__init__(logging.WARNING)
        self._delegates = delegates
        self._thread = threading.get_ident()
        self._token = trio.lowlevel.current_trio_token()

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        for screen in self._delegates.heard_by(record.name):
            if threading.get_ident() == self._thread:
                screen.complain(text)
            else:
                self._token.run_sync_soon(screen.complain, text)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Hear what is logged during the block."""
        root = logging.getLogger()
        root.addHandler(self)
        try:
            yield
        finally:
            root.removeHandler(self)


async def serve(storage: "ImageStorage", provider: "Fetcher", keeper: "Keeper", in_force: "InForce") -> None:
    """Take pulls of commands of this user. Runs until cancelled; returns where there is no place for that."""
    directory = places.directory(os.environ, os.geteuid())
    if directory is None or not in_force.settings.daemon:
        return
    try:
        delegates = Delegates(storage, provider, keeper, in_force)
        with ExitStack() as stack:
            desk = Desk(delegates.attend)
            listener = stack.enter_context(desk.listening(directory))
            stack.enter_context(_Telling(delegates).installed())
            await desk.serve(listener)
    except (OSError, LayerfsError) as exc:
        log.warning("%s: no command can have this daemon pull for it: %s", directory, exc)
