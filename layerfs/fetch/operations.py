"""What can be asked of an origin: a class for each, which is its question, its answer's type, and its way.

A new operation is a class here, and in each source (`layerfs.registry.client`, `layerfs.local.origin`) a
method where it needs one that they do not have. Nothing else knows the operations by name but those who ask.
"""

from typing import Any, ClassVar, Final, Union

import msgspec

from layerfs.errors import RegistryMisbehaved
from layerfs.fetch.origin import Means, Operation
from layerfs.fetch.receiving import write_down, write_range
from layerfs.oci import Descriptor, Digest, Repository, Resolved, Tag

WASTED_MAX: Final = 1 << 20
"""Bytes in front of a range that may come unasked: they cost less than another request."""


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
    whole: bool = False
    """Whether the document is wanted as well: one request may bring both."""
    result: ClassVar[Any] = Resolved

    @property
    def registry(self) -> str:
        """That of the tag."""
        return self.name.repository.registry

    async def do(self, means: Means) -> Resolved:
        """Ask the source."""
        return await means.source.resolve(self.name, whole=self.whole)


class Doubt(Operation[bool], frozen=True, tag="doubt"):
    """Say of a blob that other bytes came for it, and ask whether another server may have the right ones.

    It is proven where its own digest says so. What an image says of parts of a blob may be wrong itself.
    """

    repository: Repository
    digest: Digest
    proven: bool
    result: ClassVar[Any] = bool

    @property
    def registry(self) -> str:
        """That of the repository."""
        return self.repository.registry

    async def do(self, means: Means) -> bool:
        """Tell the source."""
        return await means.source.doubt(self.repository, self.digest, proven=self.proven)


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


class Receive(Operation[bool], frozen=True, tag="receive"):
    """Write what is missing of a blob, unverified, into a file that holds its first *offset* bytes.

    False if the source sends all behind *offset*, whatever *end* is.

    Two descriptors are lent: the file's, and one that holds its lock, so that the lock is free only when
    nobody can write any more. Tells how many of the blob's bytes the file holds. Raises RegistryError where
    asking again may help: what was told of stays. SizeMismatch for one byte too much, StoreFull, StoreError.
    """

    repository: Repository
    descriptor: Descriptor
    offset: int
    name: str
    """The file's, for error texts."""
    end: int
    """Where to stop: what follows is here, or nothing does. A source may go on."""
    follow: bool = False
    """Take what a source sends behind *end*, if it does."""
    result: ClassVar[Any] = bool

    @property
    def registry(self) -> str:
        """That of the repository."""
        return self.repository.registry

    async def do(self, means: Means) -> bool:
        """Let the source's stream into the file."""
        blob = self.descriptor
        end = self.end if self.end < blob.size else None  # a range without an end suits more servers
        async with means.source.stream_blob(self.repository, blob, self.offset, end) as stream:
            till = end if stream.is_part or not self.follow else None
            await write_down(stream, blob, self.offset, self.name, means, till)
            return stream.is_part


class ReceivePiece(Operation[bool], frozen=True, tag="piece"):
    """Write the bytes [*start*, *end*) of a blob, unverified, into their place in a file, beside others.

    The source is asked once. False if it has too much to do already: then nothing is written. Descriptors,
    what is told and what is raised are as for `Receive`, and NoRanges for a source that sends the whole.
    """

    repository: Repository
    descriptor: Descriptor
    start: int
    end: int
    name: str
    """The file's, for error texts."""
    result: ClassVar[Any] = bool

    @property
    def registry(self) -> str:
        """That of the repository."""
        return self.repository.registry

    async def do(self, means: Means) -> bool:
        """Let a part of the source's stream into the file."""
        blob = self.descriptor
        async with means.source.stream_range(self.repository, blob, self.start, self.end) as stream:
            if stream is not None:
                await write_down(stream, blob, self.start, self.name, means, self.end)
            return stream is not None


class ReceiveRange(Operation[bool], frozen=True, tag="range"):
    """Write the bytes [*start*, *end*) of a blob, unverified, into a file that is lent, from *at* on.

    False if the source knows no ranges and sends more than `WASTED_MAX` that was not asked for: then nothing
    is written. Tells how many of the bytes were. Raises RegistryError where asking again may help: what was
    told of stays. StoreFull, StoreError.
    """

    repository: Repository
    descriptor: Descriptor
    start: int
    end: int
    at: int
    name: str
    """The file's, for error texts."""
    result: ClassVar[Any] = bool

    @property
    def registry(self) -> str:
        """That of the repository."""
        return self.repository.registry

    async def do(self, means: Means) -> bool:
        """Let a part of the source's stream into the file."""
        span = self.start, self.end
        source = means.source
        async with source.stream_blob(self.repository, self.descriptor, *span, exact=True) as stream:
            if self.start - stream.offset > WASTED_MAX:
                return False
            written = await write_range(stream, span, self.at, self.name, means)
        if written < self.end - self.start:
            what = f"{self.descriptor.digest}: {written} bytes from {self.start} on"
            raise RegistryMisbehaved(f"{what} (expected {self.end - self.start})")
        return True


operations: Final[msgspec.json.Decoder[Operation[Any]]] = msgspec.json.Decoder(
    Union[tuple(Operation.__subclasses__())]  # noqa: UP007 - computed
)
"""Reads any operation: the classes above."""
