"""Connections without a proxy: httpcore's pool, behind a gate that sees the address of each connection.

httpx makes its pools itself and gives them no network of ours; so this is its transport, for one route.
"""

import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio

from layerfs.errors import Denied
from layerfs.registry.http import httpcore, httpx
from layerfs.registry.reach import Reach, scope_of

READ: Final = 256 * 1024
"""Bytes read at once. With httpcore's own 64 KiB a fast download over plain HTTP takes a third longer; TLS
has records of 16 KiB."""

_ERRORS: Final = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


async def addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses of *host*, in the order to be tried. Raises OSError."""
    found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Gate(httpcore.AsyncNetworkBackend):
    """Connects to what *reach* allows; None allows all. Raises Denied if it allows no address of a host."""

    def __init__(self, reach: Reach | None) -> None:
        self._reach = reach
        self._inner = httpcore.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of *host* that is allowed and answers."""
        hosts = [host] if self._reach is None else await _allowed(host, port, self._reach, timeout)
        for number, one in enumerate(hosts, 1):
            try:
                stream = await self._inner.connect_tcp(one, port, timeout, local_address, socket_options)
                return _Stream(stream)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(hosts):
                    raise
        raise AssertionError("a host without addresses")  # pragma: no cover - getaddrinfo raises

    async def sleep(self, seconds: float) -> None:
        """Sleep, between the retries of httpcore, which are off."""
        await trio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection that reads more at once."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._inner.read(max(max_bytes, READ), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        return await self._inner.start_tls(ssl_context, server_hostname, timeout)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class DirectPool(httpx.AsyncBaseTransport):
    """A transport of httpx whose connections all go through one `Gate`."""

    def __init__(self, context: ssl.SSLContext, gate: Gate) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=None,
            max_keepalive_connections=20,
            keepalive_expiry=30,
            network_backend=gate,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request*. Raises httpx.TransportError, Denied."""
        url = request.url
        made = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _as_httpx():
            response = await self._pool.handle_async_request(made)
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx():
            async for chunk in self._response.aiter_stream():
                yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


async def _allowed(host: str, port: int, reach: Reach, timeout: float | None) -> list[str]:  # noqa: ASYNC109
    """Resolve *host* and leave out what may not be connected to."""
    try:
        with trio.fail_after(float("inf") if timeout is None else timeout):
            addresses = await addresses_of(host, port)
    except trio.TooSlowError as exc:
        raise httpcore.ConnectTimeout(f"{host} was not resolved in time") from exc
    except OSError as exc:
        raise httpcore.ConnectError(str(exc)) from exc
    allowed = [address for address in addresses if reach.allows(address)]
    if not allowed:
        raise refused(host, addresses[0])
    return allowed


def refused(host: str, address: str) -> Denied:
    """Return the error for a *host* that strangers lead to, and that is at *address*."""
    return Denied(
        f"leads to {host}, whose address {address} is {scope_of(address)}: only a registry that is there "
        "itself may (reachable_networks in the configuration allows more)"
    )


@contextmanager
def _as_httpx() -> Iterator[None]:
    """Raise httpx's exceptions, which are named as httpcore's, for those."""
    try:
        yield
    except _ERRORS as exc:
        raise getattr(httpx, type(exc).__name__, httpx.TransportError)(str(exc)) from exc
