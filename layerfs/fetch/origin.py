"""Where bytes come from: what this package asks of a registry, or of whatever stands in its place.

Protocols, and the file that a blob is written to. `layerfs.fetch.remote.RemoteOrigin` is an `Origin`; a
`StreamingOrigin`, as `layerfs.registry.RegistryClient` and `layerfs.local.LocalOrigin` are, becomes one by
`layerfs.fetch.receiving.Streamed`.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from layerfs.oci import Descriptor, Digest, Repository


class Resolved(Protocol):
    """What a tag names now."""

    @property
    def digest(self) -> Digest:
        """Of the manifest or index."""

    @property
    def raw(self) -> bytes | None:
        """Its verified bytes where they were at hand."""


class Stream(Protocol):
    """Bytes of a blob, unverified, in chunks."""

    @property
    def offset(self) -> int:
        """Where they start: as asked for, or 0."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes. Raises RegistryError where asking again may help."""


@dataclass(frozen=True, slots=True)
class Target:
    """A file that holds the first *offset* bytes of a blob and is to hold the others."""

    file: int
    """Descriptor to write to; lent."""
    lock: int
    """Descriptor that holds the file's lock: who may write holds a copy of it, and dies with that."""
    offset: int
    name: str
    """For error texts."""


Arrived = Callable[[int], None]
"""Told how many of the blob's bytes the file holds now."""


class Documents(Protocol):
    """Knows images. Its methods may be called from many tasks at once; all raise LayerfsError."""

    async def resolve(self, repository: Repository, tag: str) -> Resolved:
        """Say what *tag* names now."""

    async def fetch_manifest(
        self, repository: Repository, digest: Digest, expected_size: int | None = None
    ) -> tuple[bytes, str]:
        """Return the verified bytes of a manifest or index, and its media type where that is known."""

    async def fetch_config(self, repository: Repository, descriptor: Descriptor) -> bytes:
        """Return the verified bytes of a config."""


class Origin(Documents, Protocol):
    """Knows images, and puts blobs into files."""

    async def receive(
        self, repository: Repository, descriptor: Descriptor, target: Target, arrived: Arrived
    ) -> None:
        """Write what is missing of a blob, unverified; when this returns or raises, nothing writes any more.

        Raises RegistryError where asking again may help; what *arrived* was told of stays. SizeMismatch for
        one byte too much, StoreFull, StoreError.
        """


class StreamingOrigin(Documents, Protocol):
    """Knows images, and hands out blobs as streams."""

    def stream_blob(
        self, repository: Repository, descriptor: Descriptor, offset: int = 0
    ) -> AbstractAsyncContextManager[Stream]:
        """Open a blob at *offset*."""
