"""A blob on its way: where it starts, and its bytes as they come. Verifies nothing: its caller hashes.

Opened by `layerfs.registry.client`, read by `layerfs.fetch`.
"""

import logging
from contextlib import suppress
from typing import Final, Self

import msgspec
import trio

from layerfs.errors import Denied, NoRanges, RegistryError, RegistryMisbehaved, RegistryTimeout
from layerfs.oci import Descriptor, mediatype
from layerfs.registry import ranges
from layerfs.registry.calls import Call
from layerfs.registry.encoding import is_true
from layerfs.registry.pace import Pace
from layerfs.registry.ranges import ALL, Range
from layerfs.registry.redirects import Request
from layerfs.registry.reply import Reply
from layerfs.registry.requester import Requester

_log = logging.getLogger("layerfs.registry")
_RANGE_STATUSES: Final = frozenset({200, 206, *range(400, 600)}) - {401, 404, 410, 429}
"""Answers to a range after which more may be done. 416 is what RFC 9110 has for one that cannot be had; real
servers and what stands before them say 400, 403 or 501 too, although they send the whole."""
_NO_RANGES: Final = frozenset({400, 405, 501})
"""Those of them that say that there are no ranges; the others say something of this request, or of now."""
_MOST_URLS: Final = 5
_END_SECONDS: Final = 0.1
"""What the end of a chunked body may take; with a Content-Length nothing has to come any more."""


class BlobStream(msgspec.Struct):
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
    pace: Pace | None = None
    received: int = 0

    @property
    def is_part(self) -> bool:
        """Whether no more comes than was asked for."""
        return self.reply is None or self.reply.status == 206

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        began = trio.current_time()
        chunk = await self._next()
        if self.pace and not self.pace.keeps(trio.current_time() - began, len(chunk or b"")):
            raise RegistryTimeout(
                f"{self.what}: less than {self.pace.least} bytes a second came; try again later"
            )
        if chunk is None:
            at = self.offset + self.received
            if at < self.end:
                raise RegistryMisbehaved(f"{self.what}: ended after {at} bytes (expected {self.end})")
            raise StopAsyncIteration
        self.received += len(chunk)
        return chunk

    async def aclose(self) -> None:
        """Let go of the connection; may be called twice. One that has sent all can be used again."""
        if self.reply is None:
            return
        try:
            if self.is_part and self.offset + self.received == self.end:
                await self._see_the_end()
        finally:
            self.received = -1
            await self.reply.aclose()

    async def _see_the_end(self) -> None:
        """Read on to the end of an answer whose bytes are all here: else its connection counts as broken."""
        with trio.move_on_after(_END_SECONDS), suppress(RegistryError):
            await self._next()

    async def _next(self) -> bytes | None:
        if self.reply is not None:
            return await self.reply.next_chunk(self.what, decoded=self.decoded)
        chunk, self.inline = self.inline, b""
        return chunk or None


async def open_blob(requester: Requester, call: Call, descriptor: Descriptor, *, exact: bool) -> BlobStream:
    """Ask a registry for ``call.range`` of a blob; for all of it where a range is not answered as one.

    If it has to be *exact*, only where the registry has no ranges. Raises what `Requester.open` raises.
    """
    call = msgspec.structs.replace(call, download=True)
    if call.range != ALL:
        statuses = _NO_RANGES | {200, 206, 416} if exact else _RANGE_STATUSES
        reply = await requester.open(msgspec.structs.replace(call, statuses=statuses))
        if reply.status in (200, 206):
            try:
                return await _stream(reply, call.range, call.what, descriptor, requester.pace())
            except RegistryMisbehaved as exc:
                if exact:
                    raise
                _log.info("%s: %s; asking for the whole", call.what, exc)
        elif exact and reply.status == 416:
            length = reply.headers.get("content-range", "")[:100]
            await reply.drain()
            raise RegistryMisbehaved(
                f"{call.what}: status 416 to {call.range.header}, Content-Range {length!r} "
                f"(expected these of {descriptor.size} bytes); try again later, or push the image again"
            )
        else:
            _log.info("%s: a range is answered with status %d; asking for the whole", call.what, reply.status)
            await reply.drain()
        call = msgspec.structs.replace(call, range=ALL)
    reply = await requester.open(call)
    return await _stream(reply, call.range, call.what, descriptor, requester.pace())


async def open_range(requester: Requester, call: Call, descriptor: Descriptor) -> BlobStream | None:
    """Ask once for ``call.range`` of a blob, beside other requests for it; None while no place is free.

    Raises NoRanges where the whole is sent, or no such range is known, and what `Requester.open` raises.
    """
    call = msgspec.structs.replace(call, download=True, statuses=frozenset({200, 206, 416}))
    reply = await requester.open_spare(call)
    if reply is None:
        return None
    if reply.status != 206:
        await reply.aclose()
        raise NoRanges(f"{call.what}: a range is answered with status {reply.status} (expected 206)")
    return await _stream(reply, call.range, call.what, descriptor, requester.pace())


async def open_foreign(requester: Requester, call: Call, descriptor: Descriptor) -> BlobStream | None:
    """Ask the servers that ``urls`` names, without any credentials; None if none of them has it."""
    if not mediatype.is_foreign(descriptor.media_type):
        return None
    for url in descriptor.urls[:_MOST_URLS]:
        try:
            request = Request("GET", url, range=call.range, kind="foreign")
            reply = await requester.open_foreign(request, call.what, call.registry)
            return await _stream(reply, call.range, call.what, descriptor, requester.pace())
        except Denied as exc:
            _log.warning("%s: a foreign layer: %s", call.what, exc)
        except RegistryError as exc:
            _log.info("%s; trying elsewhere", exc)
    return None


async def _stream(reply: Reply, asked: Range, what: str, descriptor: Descriptor, pace: Pace) -> BlobStream:
    try:
        if reply.status not in (200, 206):
            raise (await reply.problem()).error(what, str(reply.request.origin))
        start, stop = ranges.part_of_body(asked, descriptor.size, reply.status, reply.headers)
        decoded = _is_encoded(reply, stop - start) and is_true(
            reply.encoding, await reply.peek(what), mediatype.compression_of(descriptor.media_type)
        )
        end = stop if reply.status == 206 or asked.last is None else asked.last + 1
        if decoded and start:
            raise RegistryMisbehaved(f"{what}: a range of compressed bytes (expected them as they are)")
    except BaseException:
        await reply.aclose()
        raise
    return BlobStream(what, start, end, reply, decoded=decoded, pace=pace)


def _is_encoded(reply: Reply, expected: int) -> bool:
    """Say whether the body was compressed on its way.

    Some servers say ``Content-Encoding: gzip`` because the blob itself is gzip: then the size is right.
    """
    return reply.encoding not in ("", "identity") and reply.headers.get("content-length") != str(expected)
