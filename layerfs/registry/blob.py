"""A blob on its way: where it starts, and its bytes as they come. Verifies nothing: its caller hashes.

Opened by `layerfs.registry.client`, read by `layerfs.fetch`.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final, Self

from layerfs.errors import RegistryError, RegistryMisbehaved
from layerfs.oci import Descriptor, mediatype
from layerfs.registry import ranges
from layerfs.registry.endpoint import WebOrigin, is_loopback, redact
from layerfs.registry.ranges import ALL, Range
from layerfs.registry.redirects import Request
from layerfs.registry.reply import Reply
from layerfs.registry.requester import Call, Requester

_log = logging.getLogger("layerfs.registry")
_STATUSES: Final = frozenset({200, 206, 416})
_MOST_URLS: Final = 5


@dataclass(slots=True)
class BlobStream:
    """Bytes of a blob from ``offset`` on: where the server really starts, which may be 0 again.

    Iterating raises Unreachable or RegistryTimeout when the connection breaks, RegistryMisbehaved when
    the server ends before ``end``; all of them mean: resume at the bytes received.
    """

    what: str
    offset: int
    end: int
    """The first byte that is not wanted; the server may send more, for the caller to refuse or to ignore."""
    reply: Reply | None
    """None for bytes that need no request."""
    inline: bytes = b""
    decoded: bool = False
    """The server compressed what it sends, besides what the blob is."""
    received: int = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._next()
        if chunk is None:
            at = self.offset + self.received
            if at < self.end:
                raise RegistryMisbehaved(f"{self.what}: ended after {at} bytes (expected {self.end})")
            raise StopAsyncIteration
        self.received += len(chunk)
        return chunk

    async def aclose(self) -> None:
        """Let go of the connection; may be called twice."""
        if self.reply is not None:
            await self.reply.aclose()

    async def _next(self) -> bytes | None:
        if self.reply is not None:
            return await self.reply.next_chunk(self.what, decoded=self.decoded)
        chunk, self.inline = self.inline, b""
        return chunk or None


async def open_blob(requester: Requester, call: Call, descriptor: Descriptor) -> BlobStream:
    """Ask a registry for ``call.range`` of a blob.

    Raises what `Requester.open` raises, and RegistryMisbehaved for a range that was not asked for.
    """
    call = replace(call, statuses=_STATUSES, download=True)
    reply = await requester.open(call)
    if reply.status == 416 and call.range != ALL:
        await reply.drain()
        reply = await requester.open(replace(call, range=ALL))
    return await _stream(reply, call.range, call.what, descriptor)


async def open_foreign(
    requester: Requester, call: Call, descriptor: Descriptor, *, private: bool
) -> BlobStream | None:
    """Ask the servers that ``urls`` names, without any credentials; None if none of them has it.

    *private* allows addresses of private networks, for a registry that is itself in one.
    """
    for url in _usable(descriptor, private=private):
        request = Request("GET", url, range=call.range)
        try:
            reply = await requester.open_foreign(request, call.what, call.registry)
            return await _stream(reply, call.range, call.what, descriptor)
        except RegistryError as exc:
            _log.info("%s; trying elsewhere", exc)
    return None


def _usable(descriptor: Descriptor, *, private: bool) -> Iterator[str]:
    """Yield the URLs that may be asked. An image must not make us call services of this network."""
    if not mediatype.is_foreign(descriptor.media_type):
        return
    for url in descriptor.urls[:_MOST_URLS]:
        try:
            host = WebOrigin.of(url).host
        except RegistryError:
            continue
        if private or not _is_private(host):
            yield url
        else:
            _log.warning("%s: not asked for a foreign layer: a private address", redact(url))


def _is_private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return is_loopback(host)


async def _stream(reply: Reply, asked: Range, what: str, descriptor: Descriptor) -> BlobStream:
    try:
        if reply.status not in (200, 206):
            raise (await reply.problem()).error(what, str(reply.request.origin))
        start = ranges.start_of_body(asked, descriptor.size, reply.status, reply.headers)
        end = descriptor.size if asked.last is None else asked.last + 1
        decoded = _is_encoded(reply, (end if reply.status == 206 else descriptor.size) - start)
        if decoded and start:
            raise RegistryMisbehaved(f"{what}: a range of compressed bytes (expected them as they are)")
    except BaseException:
        await reply.aclose()
        raise
    return BlobStream(what, start, end, reply, decoded=decoded)


def _is_encoded(reply: Reply, expected: int) -> bool:
    """Say whether the body was compressed on its way.

    Some servers say ``Content-Encoding: gzip`` because the blob itself is gzip: then the size is right.
    """
    return reply.encoding not in ("", "identity") and reply.headers.get("content-length") != str(expected)
