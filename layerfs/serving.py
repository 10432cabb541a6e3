"""The wiring of ``layerfs serve``: a store, who may fetch into it, and a server before both."""

import logging
import os
import resource
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Final

import msgspec
import trio

from layerfs import __version__
from layerfs import app as wiring
from layerfs.errors import InvalidSettings
from layerfs.fetch.fetcher import Fetcher
from layerfs.fetch.tasks import background
from layerfs.metrics import exposition_of_server
from layerfs.serve.counts import ServerCounts
from layerfs.serve.distribution import Distribution
from layerfs.serve.holding import Holding
from layerfs.serve.limits import ServerLimits
from layerfs.serve.listening import handed_over, listen, removed_at_end, shown
from layerfs.serve.names import Names
from layerfs.serve.replies import Refused
from layerfs.serve.server import Server
from layerfs.settings import Address, Settings
from layerfs.status import Serving
from layerfs.store import ImageStorage
from layerfs.supervision import InForce

DEFAULT: Final = Address("127.0.0.1", 5000)
"""Where ``layerfs serve`` listens."""
_END_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_MOUNT_SECONDS: Final = 5.0
"""How long the mount beside has to say what it did."""
_DESCRIPTORS: Final = 64
"""Descriptors beside those of connections, each of which has two: the socket and a file."""

log = logging.getLogger(__name__)


async def serve(
    settings: Settings,
    storage: ImageStorage,
    ready: Callable[[list[Address]], None],
    limits: ServerLimits | None = None,
    owner: int | None = None,
    mount: Path | None = None,
) -> None:
    """Serve *storage* until a signal says to end. Calls *ready* with where it listens.

    A second signal ends what is being sent, too, and so does the end of file of *owner*. Metrics, where they
    are given, have those of the *mount* beside.
    Raises InvalidSettings, StoreError, LayerfsError.
    """
    given = settings.serve
    given.require_sound(settings)
    tls = _tls(settings)
    connections = _affordable(given.max_connections)
    limits = limits or ServerLimits(connections=connections)
    address = given.listen or DEFAULT
    listeners = handed_over(os.environ)
    mine = removed_at_end(address) if not listeners else nullcontext()
    listeners = listeners or await listen(address)
    with mine:
        async with _provider(settings, storage) as provider:
            names = Names(storage, given.repositories)
            distribution = Distribution(storage, names, provider, settings.fetch_timeout)
            counts = ServerCounts(given.metrics, ServerMetrics(settings, provider, mount).text)
            server = Server(distribution, Holding(storage), limits, tls, counts)
            ended = trio.Event()
            async with background() as nursery:
                await nursery.start(_watch_signals, ended, nursery.cancel_scope)
                if owner is not None:
                    nursery.start_soon(_watch_owner, owner, nursery.cancel_scope)
                await server.run(listeners, lambda: ready([shown(one) for one in listeners]), ended)


@asynccontextmanager
async def _provider(settings: Settings, storage: ImageStorage) -> AsyncIterator[Fetcher | None]:
    """Own who fetches what is missing; nobody unless that was said."""
    if not settings.serve.fetch:
        yield None
        return
    limited = msgspec.structs.replace(settings, registries=settings.serve.registries(settings))
    async with wiring.fetching(storage, InForce(limited)) as (provider, _):
        yield provider


class ServerMetrics:
    """The text of what a server did, and the mount beside it."""

    def __init__(self, settings: Settings, fetcher: Fetcher | None, mount: Path | None) -> None:
        self._fetcher = fetcher if mount is None else None  # the mount has counts of these names
        platform, now = str(settings.preferred_platform), time.time()
        self._process = (__version__, platform, now) if mount is None else None
        self._mount = None if mount is None else mount / ".layerfs/metrics"
        self._readers = trio.CapacityLimiter(1)

    async def text(self, counts: ServerCounts) -> bytes:
        """Return it as of now. Raises Refused if the mount does not answer."""
        about = Serving(
            process=self._process,
            fetching=None if self._fetcher is None else self._fetcher.statistics(),
            connections=counts.connections,
            refused=counts.refused,
            answers=dict(counts.answers),
            sent=counts.sent,
        )
        own = await trio.to_thread.run_sync(exposition_of_server, about)
        return own if self._mount is None else await self._read(self._mount) + own

    async def _read(self, path: Path) -> bytes:
        with trio.move_on_after(_MOUNT_SECONDS):
            try:
                return await trio.to_thread.run_sync(
                    path.read_bytes, abandon_on_cancel=True, limiter=self._readers
                )
            except OSError as exc:
                log.debug("%s: %s", path, exc.strerror)
        raise Refused(
            503, "UNAVAILABLE", "the mount does not answer (expected its metrics); layerfs status says why"
        )


def _tls(settings: Settings) -> ssl.SSLContext | None:
    certificate, key = settings.serve.tls_cert, settings.serve.tls_key
    if certificate is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for file in (certificate, key):
        try:
            file.read_bytes()
        except OSError as exc:
            raise InvalidSettings(f"{file}: {exc.strerror} (expected a file in PEM)") from exc
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        raise InvalidSettings(
            f"{certificate}, {key}: no certificate with its key (expected both in PEM, the key without "
            "a password)"
        ) from exc
    return context


def _affordable(connections: int) -> int:
    """Raise the limit of descriptors; return how many *connections* it allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = min(connections, max(1, (hard - _DESCRIPTORS) // 2))
    if found < connections:
        log.warning(
            "%d connections at the same time, not %d: the limit of descriptors is %d",
            found,
            connections,
            hard,
        )
    return found


async def _watch_signals(
    ended: trio.Event,
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(*_END_SIGNALS) as signals:
        task_status.started()
        async for number in signals:
            if ended.is_set():
                scope.cancel()
                return
            log.info("%s: ending", signal.Signals(number).name)
            ended.set()


async def _watch_owner(owner: int, scope: trio.CancelScope) -> None:
    """End everything once nobody holds the other end of the pipe *owner*."""
    await trio.lowlevel.wait_readable(owner)
    scope.cancel()
