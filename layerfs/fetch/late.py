"""An origin that is made when it is first asked.

Making one brings the libraries for HTTP along, a quarter of the time that a daemon takes to start, and much
of what a mount shows is in the store already. Moves questions; decides nothing. Called by `layerfs.app`.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Self

import trio

from layerfs.fetch.origin import Origin, Resolved, Stream
from layerfs.oci import Descriptor, Digest, Repository

Make = Callable[[], AbstractAsyncContextManager[Origin]]


class LateOrigin:
    """What *make* returns, entered at the first question, and left with this one. An async context manager.

    *make* is called in a thread: what it imports must not stop those who ask for what is there.
    """

    def __init__(self, make: Make) -> None:
        self._make = make
        self._making = trio.Lock()
        self._made: AbstractAsyncContextManager[Origin] | None = None
        self._origin: Origin | None = None

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._made is not None:
            await self._made.__aexit__(None, None, None)

    async def resolve(self, repository: Repository, tag: str) -> Resolved:
        """Say what *tag* names now."""
        return await (await self._opened()).resolve(repository, tag)

    async def fetch_manifest(
        self, repository: Repository, digest: Digest, expected_size: int | None = None
    ) -> tuple[bytes, str]:
        """Return the verified bytes of a manifest or index, and its media type where that is known."""
        return await (await self._opened()).fetch_manifest(repository, digest, expected_size)

    async def fetch_config(self, repository: Repository, descriptor: Descriptor) -> bytes:
        """Return the verified bytes of a config."""
        return await (await self._opened()).fetch_config(repository, descriptor)

    @asynccontextmanager
    async def stream_blob(
        self, repository: Repository, descriptor: Descriptor, offset: int = 0
    ) -> AsyncIterator[Stream]:
        """Open a blob at *offset*."""
        origin = await self._opened()
        async with origin.stream_blob(repository, descriptor, offset) as stream:
            yield stream

    async def _opened(self) -> Origin:
        if self._origin is None:
            async with self._making:
                if self._origin is None:
                    made = await trio.to_thread.run_sync(self._make)
                    self._origin, self._made = await made.__aenter__(), made
        return self._origin
