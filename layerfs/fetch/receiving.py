"""Streams of blobs into files. Moves bytes; verifies nothing but their number.

Used by `downloader` for registries, and by `layerfs.app` for local sources.
"""

import os
from typing import Final

import trio

from layerfs.errors import SizeMismatch
from layerfs.fetch.origin import Arrived, Resolved, StreamingOrigin, Target
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.store.disk import disk_errors

ANNOUNCED: Final = 1 << 20
"""Bytes after which it is told that they arrived: each time is a message, and a step of the daemon."""


class Streamed:
    """The origin that *source* is when its streams are written down.

    By threads, unless the loop has nothing to do that may not wait for a disk: then *inline*.
    """

    def __init__(self, source: StreamingOrigin, *, inline: bool = False) -> None:
        self._source = source
        self._inline = inline

    async def resolve(self, repository: Repository, tag: str) -> Resolved:
        """Say what *tag* names now."""
        return await self._source.resolve(repository, tag)

    async def fetch_manifest(
        self, repository: Repository, digest: Digest, expected_size: int | None = None
    ) -> tuple[bytes, str]:
        """Return the verified bytes of a manifest or index, and its media type where that is known."""
        return await self._source.fetch_manifest(repository, digest, expected_size)

    async def fetch_config(self, repository: Repository, descriptor: Descriptor) -> bytes:
        """Return the verified bytes of a config."""
        return await self._source.fetch_config(repository, descriptor)

    async def receive(
        self, repository: Repository, descriptor: Descriptor, target: Target, arrived: Arrived
    ) -> None:
        """Write what is missing of a blob. Raises as `layerfs.fetch.origin.Origin` says."""
        async with self._source.stream_blob(repository, descriptor, target.offset) as stream:
            # A server that ignores Range sends what is there already: the same bytes, or the digest fails.
            skip = target.offset - stream.offset
            file = _File(target, descriptor, arrived)
            try:
                async for chunk in stream:
                    passed = min(skip, len(chunk))
                    skip -= passed
                    file.check(len(chunk) - passed)
                    if self._inline:
                        file.write(memoryview(chunk)[passed:])
                    else:
                        await trio.to_thread.run_sync(file.write, memoryview(chunk)[passed:])
                    file.announce(ANNOUNCED)
            finally:  # a broken connection takes away nothing that arrived
                file.announce(1)


class _File:
    """The file that a blob goes to, and how far it is."""

    def __init__(self, target: Target, descriptor: Descriptor, arrived: Arrived) -> None:
        self._target = target
        self._descriptor = descriptor
        self._arrived = arrived
        self._written = self._announced = target.offset

    def check(self, more: int) -> None:
        """Raise SizeMismatch if *more* bytes are too many."""
        size = self._descriptor.size
        if self._written + more > size:
            raise SizeMismatch(f"{self._descriptor.digest}: more bytes came (expected {size})")

    def write(self, data: memoryview) -> None:
        """Append *data*. Raises StoreFull, StoreError."""
        with disk_errors(f"{self._target.name}: cannot write"):
            while data:
                taken = os.pwrite(self._target.file, data, self._written)
                self._written += taken
                data = data[taken:]

    def announce(self, least: int) -> None:
        """Tell how much is there, if that is at least *least* bytes more than was told."""
        if self._written - self._announced >= least:
            self._announced = self._written
            self._arrived(self._written)
