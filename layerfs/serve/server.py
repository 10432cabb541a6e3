"""Connections of strangers: so many at the same time, and no longer than they are of use.

`serve` owns the tasks. Told to end it takes no more, ends those that wait for a request, and gives what is
being sent some seconds.
"""

import logging
import os
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv6Address, ip_address

import trio

from layerfs.serve.counts import ServerCounts
from layerfs.serve.distribution import Distribution
from layerfs.serve.exchange import Duplex, Exchange, Peer
from layerfs.serve.holding import Holding
from layerfs.serve.limits import ServerLimits
from layerfs.serve.replies import REASONS, Refused
from layerfs.serve.sending import ReaderLost, prepare

log = logging.getLogger(__name__)

_IPV6_BITS = 64
"""The bits of an address of IPv6 that say whose it is."""


class Visitors:
    """Who is connected, and who of them waits for a request."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._peers: Counter[str] = Counter()
        self._idle: set[trio.CancelScope] = set()
        self._ending = False

    def __len__(self) -> int:
        """Return how many are connected."""
        return self._peers.total()

    @contextmanager
    def one(self, peer: str, *, counted: bool) -> Iterator[Refused | None]:
        """Count a connection for the block; yield why it cannot be served, if it cannot.

        Of one *peer* there are fewer, unless that is no address and so not *counted*.
        """
        limits, problem = self._limits, None
        if len(self) >= limits.connections:
            problem = Refused(
                503, "TOOMANYREQUESTS", f"{len(self)} connections (at most so many)", ("Retry-After", "1")
            )
        elif counted and self._peers[peer] >= limits.of_a_peer:
            most = f"{self._peers[peer]} connections from {peer} (at most so many)"
            problem = Refused(429, "TOOMANYREQUESTS", most, ("Retry-After", "1"))
        if problem is not None:
            yield problem
            return
        self._peers[peer] += 1
        try:
            yield None
        finally:
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]

    @contextmanager
    def waiting(self, seconds: float) -> Iterator[trio.CancelScope]:
        """Let the block wait for a request, *seconds* at most, and not while the server ends."""
        with trio.move_on_after(seconds) as scope:
            self._idle.add(scope)
            if self._ending:
                scope.cancel()
            try:
                yield scope
            finally:
                self._idle.discard(scope)

    def end(self) -> None:
        """End all waits for requests, now and from now on."""
        self._ending = True
        for scope in self._idle:
            scope.cancel()


class Server:
    """Answers on listeners until it is told to end."""

    def __init__(
        self,
        distribution: Distribution,
        holding: Holding,
        limits: ServerLimits,
        tls: ssl.SSLContext | None = None,
        counts: ServerCounts | None = None,
    ) -> None:
        self._distribution = distribution
        self._holding = holding
        self._limits = limits
        self._tls = tls
        self._counts = counts or ServerCounts()
        self._visitors = Visitors(limits)

    async def run(
        self, listeners: list[trio.SocketListener], ready: Callable[[], None], ended: trio.Event
    ) -> None:
        """Serve until *ended*, and then what is being sent for `grace_seconds`. Calls *ready* at first."""
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(
                    partial(trio.serve_listeners, self._welcome, listeners, handler_nursery=connections)
                )
                ready()
                await ended.wait()
                accepting.cancel_scope.cancel()
            self._visitors.end()
            if len(self._visitors):
                log.info("%d connections are given %g s", len(self._visitors), self._limits.grace_seconds)
            connections.cancel_scope.deadline = trio.current_time() + self._limits.grace_seconds

    async def _welcome(self, stream: trio.SocketStream) -> None:
        """Own one connection. Whatever goes wrong with it ends it, and nothing else."""
        try:
            peer = _peer(stream)
            with self._visitors.one(peer.name, counted=peer.is_counted) as problem:
                self._counts.connections = len(self._visitors)
                if problem is not None:
                    self._counts.refused += 1
                    log.debug("%s: refused: %s", peer, problem)
                    self._turn_away(stream, problem)
                    return
                prepare(stream)
                await self._talk(stream, peer)
        except ReaderLost as exc:
            log.debug("a reader was lost: %s", exc)
        except OSError as exc:
            log.warning("a connection ended: %s", exc)
        except Exception:  # a bug must not end what others are sent
            log.exception("a connection ended by a fault of layerfs")
        finally:
            self._counts.connections = len(self._visitors)
            await trio.aclose_forcefully(stream)

    async def _talk(self, stream: trio.SocketStream, peer: Peer) -> None:
        talk: Duplex = stream
        if self._tls is not None:
            talk = secured = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
            with trio.move_on_after(self._limits.head_seconds) as scope:
                try:
                    await secured.do_handshake()
                except trio.BrokenResourceError as exc:
                    log.debug("%s: no TLS: %s", peer, exc.__cause__ or exc)
                    return
            if scope.cancelled_caught:
                return
        parts = self._distribution, self._holding, self._limits, self._counts
        await Exchange(talk, peer, *parts).run(self._visitors)

    def _turn_away(self, stream: trio.SocketStream, problem: Refused) -> None:
        """Say why, if that can be done at once and in plain text."""
        if self._tls is not None:
            return
        reply = problem.reply()
        lines = [f"HTTP/1.1 {reply.status} {REASONS[reply.status]}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in reply.headers]
        body = reply.body if isinstance(reply.body, bytes) else b""
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("ascii")
        try:
            os.write(stream.socket.fileno(), head + body)
        except OSError:
            return


def _peer(stream: trio.SocketStream) -> Peer:
    """Return whose the connection is."""
    if stream.socket.family == trio.socket.AF_UNIX:
        return Peer("a process of this machine", is_counted=False, is_here=True)
    address = ip_address(str(stream.socket.getpeername()[0]).partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            site = IPv6Address(int(address) >> _IPV6_BITS << _IPV6_BITS)
            return Peer(f"{site}/{_IPV6_BITS}", is_counted=True, is_here=address.is_loopback)
        address = address.ipv4_mapped
    return Peer(str(address), is_counted=True, is_here=address.is_loopback)
