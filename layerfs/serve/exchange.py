"""One connection: requests are read one after the other, each is answered before the next is looked at.

h11 parses; what may hide a second request is refused before anything of it is believed: no request here has a
body, so one that announces one, in whatever way, is answered with an error and the connection ends.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from email.utils import formatdate
from typing import Final, Protocol

import h11
import msgspec
import trio

import layerfs
from layerfs.foreign import LINE, printable
from layerfs.serve import asks, ranges
from layerfs.serve.counts import ServerCounts
from layerfs.serve.distribution import Distribution
from layerfs.serve.holding import Holding
from layerfs.serve.limits import Patience, ServerLimits
from layerfs.serve.replies import REASONS, Answer, BlobPart, Refused, Served
from layerfs.serve.sending import Outlet, send_bytes, send_file

_READ: Final = 16 << 10
_ALWAYS: Final = (("Docker-Distribution-API-Version", "registry/2.0"), ("X-Content-Type-Options", "nosniff"))
_VERSIONS: Final = (b"1.0", b"1.1")
_LINGER_SECONDS: Final = 2.0
"""How long what a client still sends is read and dropped, so that it can read why it was refused."""
_LINGER_BYTES: Final = 256 << 10

log = logging.getLogger(__name__)


class Peer(msgspec.Struct, frozen=True):
    """Who is at the other end."""

    name: str
    """The address; of IPv6 the network of a site."""
    is_counted: bool
    """Whether that is an address, so that it has its share of connections."""
    is_here: bool
    """Whether it is a process of this machine, which may be a proxy."""

    def __str__(self) -> str:
        return self.name


class Duplex(Outlet, Protocol):
    """A connection, plain or TLS."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return some bytes, none at the end."""


class Idle(Protocol):
    """Who ends waits for requests when the server is told to end."""

    def waiting(self, seconds: float) -> AbstractContextManager[trio.CancelScope]:
        """Let a block wait so many seconds, and not while the server ends."""


class _Sized:
    """Stands for bytes that `sendfile` sends: h11 counts them."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


class Exchange:
    """The requests and answers of one connection."""

    def __init__(
        self,
        stream: Duplex,
        peer: Peer,
        distribution: Distribution,
        holding: Holding,
        limits: ServerLimits,
        counts: ServerCounts,
    ) -> None:
        self._stream = stream
        self._peer = peer
        self._counts = counts
        self._distribution = distribution
        self._holding = holding
        self._limits = limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self._patience = Patience(limits.least, limits.patience_seconds)
        self._left = limits.requests
        self._method = ""
        """That of the request which is being answered."""

    async def run(self, idle: Idle) -> None:
        """Answer until the client closes, or gives a reason to. Raises ReaderLost, OSError of the disk."""
        while True:
            try:
                request = await self._next_request(idle)
            except h11.RemoteProtocolError as exc:
                status = exc.error_status_hint if exc.error_status_hint in REASONS else 400
                await self._refuse(Refused(status, "UNSUPPORTED", f"not a request of HTTP: {exc}"))
                return
            except Refused as exc:
                await self._refuse(exc)
                return
            if request is None:
                return
            self._left -= 1
            await self._answer(request)
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                await self._linger()
                return
            self._http.start_next_cycle()

    async def _next_request(self, idle: Idle) -> h11.Request | None:
        """Return the next request, whole; None if there will be none. Raises Refused, RemoteProtocolError."""
        with idle.waiting(self._limits.idle_seconds) as scope:
            event = self._http.next_event()
            while event is h11.NEED_DATA:
                try:
                    data = await self._stream.receive_some(_READ)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return None
                # From the first byte on: a later one ends the wait no later.
                scope.deadline = min(scope.deadline, trio.current_time() + self._limits.head_seconds)
                self._http.receive_data(bytes(data))
                event = self._http.next_event()
        if scope.cancelled_caught:
            if self._http.trailing_data[0]:
                raise Refused(408, "UNSUPPORTED", f"no whole request within {self._limits.head_seconds:g} s")
            return None
        if not isinstance(event, h11.Request):
            return None
        self._method = event.method.decode("ascii")
        if event.http_version not in _VERSIONS:
            version = event.http_version.decode("ascii")
            raise Refused(505, "UNSUPPORTED", f"HTTP/{version} (expected HTTP/1.1)")
        self._require_no_body(event)
        self._http.next_event()  # the end of the message
        return event

    def _require_no_body(self, request: h11.Request) -> None:
        for name, value in request.headers:
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
                asks.require_method(self._method)
                raise Refused(
                    413,
                    "UNSUPPORTED",
                    f"{self._method[:LINE]}: with a body (expected none)",
                )

    async def _answer(self, request: h11.Request) -> None:
        began = trio.current_time()
        target = request.target.decode("ascii")
        headers: dict[str, str] = {}
        for name, value in request.headers:
            headers.setdefault(name.decode("ascii"), value.decode("latin-1"))
        kind = "other"
        try:
            ask = asks.parse(self._method, target)
            kind = ask.kind
            reply = await self._found(ask, headers)
        except Refused as exc:
            reply = exc.reply()
        status = await self._send(reply)
        self._counts.answered(kind, status, 0 if self._method == "HEAD" else reply.size)
        seconds = trio.current_time() - began
        shown = printable(target, LINE)
        log.debug(
            "%s %s %s: %d, %d bytes, %.3f s", self._peer, self._method, shown, status, reply.size, seconds
        )

    async def _found(self, ask: asks.Ask | asks.MetricsAsk, headers: dict[str, str]) -> Answer:
        """Return the answer to an ask. Raises Refused."""
        if isinstance(ask, asks.MetricsAsk):
            if not self._counts.may_read(headers, here=self._peer.is_here):
                raise asks.unknown()
            return await self._counts.read()
        found = await self._distribution.answer(ask)
        return ranges.answer(found, self._method, headers) if isinstance(found, Served) else found

    async def _send(self, reply: Answer) -> int:
        """Send *reply*; return the status that was sent. Raises ReaderLost, OSError of the disk."""
        silent = self._method == "HEAD" or reply.status == 304
        if not isinstance(reply.body, BlobPart) or silent:
            await self._send_head(reply)
            if isinstance(reply.body, bytes) and not silent:
                await self._write(self._http.send(h11.Data(data=reply.body)))
            await self._end()
            return reply.status
        part = reply.body
        async with self._holding.of(part.blob.digest), _opened(part) as fd:
            if fd is None:
                gone = Refused(404, "BLOB_UNKNOWN", f"{part.blob.digest}: was removed a moment ago").reply()
                return await self._send(gone)
            await self._send_head(reply)
            self._http.send_with_data_passthrough(h11.Data(data=_Sized(reply.size)))  # type: ignore[arg-type]  # h11 wants its length alone
            await send_file(self._stream, fd, part.start, part.stop, self._patience)
            await self._end()
        return reply.status

    async def _send_head(self, reply: Answer) -> None:
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Server", f"layerfs/{layerfs.__version__}"),
            *_ALWAYS,
            *reply.headers,
        ]
        if reply.status != 304:
            headers.append(("Content-Length", str(reply.size)))
        if not self._left:
            headers.append(("Connection", "close"))
        head = h11.Response(status_code=reply.status, headers=headers, reason=REASONS[reply.status].encode())
        await self._write(self._http.send(head))

    async def _end(self) -> None:
        await self._write(self._http.send(h11.EndOfMessage()))

    async def _write(self, data: bytes | None) -> None:
        if data:
            await send_bytes(self._stream, data, self._patience)

    async def _refuse(self, refused: Refused) -> None:
        """Answer what is no request, if there can be an answer, and end."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            reply = refused.reply()
            self._left = 0
            log.debug("%s: %d, %s", self._peer, reply.status, refused)
            self._counts.answered("other", await self._send(reply), reply.size)
            await self._linger()

    async def _linger(self) -> None:
        """Say that nothing more comes, and drop what still does: unread bytes would have the answer lost."""
        with trio.move_on_after(_LINGER_SECONDS):
            try:
                if isinstance(self._stream, trio.SocketStream):
                    await self._stream.send_eof()
                dropped = 0
                while dropped < _LINGER_BYTES and (data := await self._stream.receive_some(_READ)):
                    dropped += len(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return


@asynccontextmanager
async def _opened(part: BlobPart) -> AsyncIterator[int | None]:
    """Own a descriptor of the blob; None if it was removed since it was found."""

    def open_() -> int | None:
        try:
            fd = os.open(part.blob.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if os.fstat(fd).st_size == part.blob.size:
            return fd
        os.close(fd)
        return None

    fd = await trio.to_thread.run_sync(open_)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)
