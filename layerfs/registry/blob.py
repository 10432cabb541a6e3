"""A blob on its way: where it starts, and its bytes as they come. Verifies nothing: its caller hashes.

Made by `layerfs.registry.client`, read by `layerfs.fetch`.
"""

from dataclasses import dataclass
from typing import Self

from layerfs.errors import RegistryMisbehaved
from layerfs.registry.transport import Reply


@dataclass(slots=True)
class BlobStream:
    """Bytes of a blob from ``offset`` on: where the server really starts, which may be 0 again.

    Iterating raises Unreachable or RegistryTimeout when the connection breaks, RegistryMisbehaved when the
    server ends before ``size``; all of them mean: resume at the bytes received.
    """

    what: str
    offset: int
    size: int
    """Of the whole blob, as its descriptor says."""
    reply: Reply | None
    """None for bytes that came inside the descriptor."""
    inline: bytes = b""
    _received: int = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._next()
        if chunk is None:
            if self.offset + self._received < self.size:
                raise RegistryMisbehaved(
                    f"{self.what}: ended after {self.offset + self._received} bytes (expected {self.size})"
                )
            raise StopAsyncIteration
        self._received += len(chunk)
        return chunk

    async def _next(self) -> bytes | None:
        if self.reply is not None:
            return await self.reply.next_chunk(self.what)
        chunk, self.inline = self.inline, b""
        return chunk or None
