"""What can be asked of an origin: a class for each, which is its question, its answer's type, and its way.

A new operation is a class here, and in each source (`layerfs.registry.client`, `layerfs.local.origin`) a
method where it needs one that they do not have. Nothing else knows the operations by name but those who ask.
"""

from typing import Any, ClassVar, Final, Union

import msgspec

from layerfs.errors import RegistryMisbehaved
from layerfs.fetch.origin import Means, Operation
from layerfs.fetch.receiving import write_down
from layerfs.oci import Descriptor, Digest, Repository, Resolved, Tag

RANGE_MAX: Final = 32 << 20
"""Bytes that one `ReadRange` returns."""


class Locate(Operation[str], frozen=True, tag="locate"):
    """Say where a registry is, once something else that was asked of it has led there."""

    name: str
    result: ClassVar[Any] = str

    @property
    def registry(self) -> str:
        """The one that is looked for."""
        return self.name

    async def do(self, means: Means) -> str:
        """Ask the source."""
        return await means.source.locate(self.name)


class Resolve(Operation[Resolved], frozen=True, tag="resolve"):
    """Say what a tag names now."""

    name: Tag
    result: ClassVar[Any] = Resolved

    @property
    def registry(self) -> str:
        """That of the tag."""
        return self.name.repository.registry

    async def do(self, means: Means) -> Resolved:
        """Ask the source."""
        return await means.source.resolve(self.name)


class FetchManifest(Operation[tuple[bytes, str]], frozen=True, tag="manifest"):
    """Return the verified bytes of a manifest or index, and its media type where that is known."""

    repository: Repository
    digest: Digest
    expected_size: int | None = None
    result: ClassVar[Any] = tuple[bytes, str]

    @property
    def registry(self) -> str:
        """That of the repository."""
        return self.repository.registry

    async def do(self, means: Means) -> tuple[bytes, str]:
        """Ask the source."""
        return await means.source.fetch_manifest(self.repository, self.digest, self.expected_size)


class FetchConfig(Operation[bytes], frozen=True, tag="config"):
    """Return the verified bytes of a config."""

    repository: Repository
    descriptor: Descriptor
    result: ClassVar[Any] = bytes

    @property
    def registry(self) -> str:
        """That of the repository."""
        return self.repository.registry

    async def do(self, means: Means) -> bytes:
        """Ask the source."""
        return await means.source.fetch_config(self.repository, self.descriptor)


class Receive(Operation[None], frozen=True, tag="receive"):
    """Write what is missing of a blob, unverified, into a file that holds its first *offset* bytes.

    Two descriptors are lent: the file's, and one that holds its lock, so that the lock is free only when
    nobody can write any more. Tells how many of the blob's bytes the file holds. Raises RegistryError where
    asking again may help: what was told of stays. SizeMismatch for one byte too much, StoreFull, StoreError.
    """

    repository: Repository
    descriptor: Descriptor
    offset: int
    name: str
    """The file's, for error texts."""
    result: ClassVar[Any] = None

    @property
    def registry(self) -> str:
        """That of the repository."""
        return self.repository.registry

    async def do(self, means: Means) -> None:
        """Let the source's stream into the file."""
        async with means.source.stream_blob(self.repository, self.descriptor, self.offset) as stream:
            await write_down(stream, self.descriptor, self.offset, self.name, means)


class ReadRange(Operation[bytes], frozen=True, tag="range"):
    """Return *length* bytes of a blob from *start* on, fewer at its end; unverified.

    At most `RANGE_MAX`, for they travel as one message. Raises RegistryError where asking again may help.
    """

    repository: Repository
    descriptor: Descriptor
    start: int
    length: int
    result: ClassVar[Any] = bytes

    @property
    def registry(self) -> str:
        """That of the repository."""
        return self.repository.registry

    async def do(self, means: Means) -> bytes:
        """Read a part of a stream. A server that knows no ranges sends the blob from its first byte."""
        end = min(self.start + min(self.length, RANGE_MAX), self.descriptor.size)
        found = bytearray()
        async with means.source.stream_blob(self.repository, self.descriptor, self.start, end) as stream:
            position = stream.offset
            async for chunk in stream:
                found += chunk[max(0, self.start - position) : max(0, end - position)]
                position += len(chunk)
                if position >= end:
                    break
        if len(found) != max(0, end - self.start):
            raise RegistryMisbehaved(f"{self.descriptor.digest}: {len(found)} bytes of {self.start} to {end}")
        return bytes(found)


operations: Final[msgspec.json.Decoder[Operation[Any]]] = msgspec.json.Decoder(
    Union[tuple(Operation.__subclasses__())]  # noqa: UP007 - computed
)
"""Reads any operation: the classes above."""
