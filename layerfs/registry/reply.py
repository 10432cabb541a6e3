"""The answer to a request: headers, and a body that is read once, with limits.

Made by `layerfs.registry.transport`; whoever gets one closes it.
"""

import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Final

import trio

from layerfs.errors import RegistryError, RegistryMisbehaved
from layerfs.registry.bandwidth import Bandwidth
from layerfs.registry.encoding import Decoder
from layerfs.registry.failures import translated
from layerfs.registry.http import httpx
from layerfs.registry.problem import MAX_ERROR_BODY, Problem
from layerfs.registry.redirects import Request
from layerfs.registry.traffic import Traffic

_log = logging.getLogger("layerfs.registry")
_DRAINED: Final = 64 << 10


class Reply:
    """The answer to a request: status and headers, and a body to be read once. Must be closed."""

    request: Request
    """The request that was answered, the last of a chain of redirects."""
    status: int
    headers: Mapping[str, str]
    """Names in any case; repeated ones joined by ", "."""
    on_close: Callable[[], None]
    """Called once, when the exchange is over."""
    _body: AsyncIterator[bytes] | None

    def __init__(
        self,
        response: httpx.Response,
        request: Request,
        patience: float,
        bandwidth: Bandwidth,
        traffic: Traffic,
    ) -> None:
        self.request = request
        self.status = response.status_code
        self.headers = response.headers
        self.on_close = lambda: None
        self._response = response
        self._bandwidth = bandwidth
        self._traffic = traffic
        self._patience = patience  # seconds for a body that is only read to be shown or thrown away
        self._body = None
        self._decoder: Decoder | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._whole: bytes | None = None
        self._peeked: bytes | None = None

    @property
    def encoding(self) -> str:
        """The Content-Encoding, empty or ``identity`` for none."""
        return self.headers.get("content-encoding", "").strip().lower()

    def header_list(self, name: str) -> list[str]:
        """Return each occurrence of a header that may stand several times."""
        return self._response.headers.get_list(name)

    async def next_chunk(self, what: str, *, decoded: bool = False) -> bytes | None:
        """Return the next bytes of the body, None at its end; *decoded* undoes a Content-Encoding.

        Raises RegistryTimeout, Unreachable (the connection broke) or RegistryMisbehaved, naming *what*.
        """
        if not decoded:
            return await self._next_raw(what)
        if self._decoder is None:
            self._decoder = Decoder(self.encoding)
        while (piece := next(self._pieces, None)) is None:
            chunk = await self._next_raw(what)
            if chunk is None:
                if not self._decoder.finished:
                    raise RegistryMisbehaved(f"{what}: compressed body ends early (expected its end)")
                return None
            self._pieces = self._decoder.feed(chunk)
        return piece

    async def peek(self, what: str) -> bytes:
        """Return the first bytes of the body as they came; they are not lost by that."""
        self._peeked = await self._next_raw(what)
        return self._peeked or b""

    async def _next_raw(self, what: str) -> bytes | None:
        if self._peeked is not None:
            peeked, self._peeked = self._peeked, None
            return peeked
        if self._body is None:
            self._body = self._response.aiter_raw()
        try:
            chunk = await anext(self._body, None)
        except (httpx.HTTPError, httpx.StreamError, ssl.SSLError, OSError) as exc:
            raise translated(exc, self.request, what) from None
        size = len(chunk or b"")
        self._traffic.came(self.request.kind, size)
        await self._bandwidth.take(size)
        return chunk

    async def read(self, limit: int, what: str) -> bytes:
        """Return the whole decoded body, also a second time.

        Raises RegistryMisbehaved if it is longer than *limit* bytes, and what `next_chunk` raises.
        """
        if self._whole is None:
            body = bytearray()
            while (chunk := await self.next_chunk(what, decoded=self.request.method != "HEAD")) is not None:
                body += chunk
                if len(body) > limit:
                    raise RegistryMisbehaved(
                        f"{what}: more than {limit} bytes from {self.request.origin} (expected at most that)"
                    )
            self._whole = bytes(body)
        return self._whole

    async def problem(self) -> Problem:
        """Read the body as an error and close; one that cannot be read is an error without text."""
        body = await self._read_and_close(MAX_ERROR_BODY)
        return Problem.parse(self.status, body, self.request.secrets())

    async def drain(self) -> None:
        """Read a short body that nobody wants and close, so that the connection can be used again."""
        await self._read_and_close(_DRAINED)

    async def _read_and_close(self, limit: int) -> bytes:
        try:
            with trio.move_on_after(self._patience):
                return await self.read(limit, "body")
        except RegistryError as exc:
            _log.debug("%r: %s", self.request, exc)
        finally:
            await self.aclose()
        return b""

    async def aclose(self) -> None:
        """Give the connection back, or close it if the body was not read to its end."""
        on_close, self.on_close = self.on_close, lambda: None
        on_close()
        with trio.CancelScope(shield=True):
            await self._response.aclose()
            await self._exhaust()

    async def _exhaust(self) -> None:
        # httpx nests generators, and trio warns about each that is collected unfinished. Reading on
        # from the closed connection fails at once, and that failure ends all of them.
        body, self._body = self._body, None
        if body is not None:
            try:
                while await anext(body, None) is not None:
                    pass
            except (httpx.HTTPError, httpx.StreamError, RuntimeError, OSError):
                pass
