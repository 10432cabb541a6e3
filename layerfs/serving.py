"""The wiring of ``layerfs serve``: a store, who may fetch into it, and a server before both."""

import logging
import os
import resource
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Final

import trio

from layerfs import app as wiring
from layerfs.errors import InvalidSettings
from layerfs.fetch.tasks import background
from layerfs.needs import Provider
from layerfs.serve.distribution import Distribution
from layerfs.serve.holding import Holding
from layerfs.serve.limits import ServerLimits
from layerfs.serve.listening import handed_over, listen, removed_at_end, shown
from layerfs.serve.names import Names
from layerfs.serve.server import Server
from layerfs.settings import Address, Settings
from layerfs.store import ImageStorage
from layerfs.supervision import InForce

DEFAULT: Final = Address("127.0.0.1", 5000)
"""Where ``layerfs serve`` listens."""
_END_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_DESCRIPTORS: Final = 64
"""Descriptors beside those of connections, each of which has two: the socket and a file."""

log = logging.getLogger(__name__)


async def serve(
    settings: Settings,
    storage: ImageStorage,
    ready: Callable[[list[Address]], None],
    limits: ServerLimits | None = None,
    owner: int | None = None,
) -> None:
    """Serve *storage* until a signal says to end. Calls *ready* with where it listens.

    A second signal ends what is being sent, too, and so does the end of file of *owner*.
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
            server = Server(distribution, Holding(storage), limits, tls)
            ended = trio.Event()
            async with background() as nursery:
                await nursery.start(_watch_signals, ended, nursery.cancel_scope)
                if owner is not None:
                    nursery.start_soon(_watch_owner, owner, nursery.cancel_scope)
                await server.run(listeners, lambda: ready([shown(one) for one in listeners]), ended)


@asynccontextmanager
async def _provider(settings: Settings, storage: ImageStorage) -> AsyncIterator[Provider | None]:
    """Own who fetches what is missing; nobody unless that was said."""
    if not settings.serve.fetch:
        yield None
        return
    limited = replace(settings, registries=settings.serve.registries(settings))
    async with wiring.fetching(storage, InForce(limited)) as (provider, _):
        yield provider


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
