"""Where bytes come from: what this package asks of a registry, or of whatever stands in its place.

Protocols only. `layerfs.registry.RegistryClient` is one `Origin`, `layerfs.local.LocalOrigin` another.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
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


class Origin(Protocol):
    """Knows images. Its methods may be called from many tasks at once; all raise LayerfsError."""

    async def resolve(self, repository: Repository, tag: str) -> Resolved:
        """Say what *tag* names now."""

    async def fetch_manifest(
        self, repository: Repository, digest: Digest, expected_size: int | None = None
    ) -> tuple[bytes, str]:
        """Return the verified bytes of a manifest or index, and its media type where that is known."""

    async def fetch_config(self, repository: Repository, descriptor: Descriptor) -> bytes:
        """Return the verified bytes of a config."""

    def stream_blob(
        self, repository: Repository, descriptor: Descriptor, offset: int = 0
    ) -> AbstractAsyncContextManager[Stream]:
        """Open a blob at *offset*."""
