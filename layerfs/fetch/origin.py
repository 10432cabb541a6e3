"""Where bytes come from: what this package asks of a registry, or of whatever stands in its place.

A *source* answers in this process: `layerfs.registry.RegistryClient`, or the images of an archive. What is
asked of it is an `Operation`, a value, so that it may as well travel: an *origin* has operations done, here
(`InProcess`) or in the downloader process (`layerfs.fetch.remote.RemoteOrigin`).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import msgspec

from layerfs.oci import Descriptor, Digest, Repository, Resolved, Tag

A = TypeVar("A")

Listener = Callable[[int], None]
"""Is called with how far an operation is."""


def ignore(_value: int) -> None:
    """Be a Listener that does nothing."""


class BlobChunks(Protocol):
    """Bytes of a blob, unverified, in chunks."""

    @property
    def offset(self) -> int:
        """Where they start: as asked for, or 0."""

    @property
    def is_part(self) -> bool:
        """Whether no more comes than was asked for."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes. Raises RegistryError where asking again may help."""


class ImageSource(Protocol):
    """Knows images. Its methods may be called from many tasks at once; all raise LayerfsError."""

    async def locate(self, registry: str) -> str:
        """Say where *registry* is, once that is known: registries of one site share what is scarce."""

    async def resolve(self, tag: Tag, *, whole: bool = False) -> Resolved:
        """Say what *tag* names now; *whole*, if the document is wanted as well, may bring it along."""

    async def doubt(self, repository: Repository, digest: Digest, *, proven: bool) -> bool:
        """Take note that other bytes came for a blob; say whether another server can be asked for it."""

    async def fetch_manifest(
        self, repository: Repository, digest: Digest, expected_size: int | None = None
    ) -> tuple[bytes, str]:
        """Return the verified bytes of a manifest or index, and its media type where that is known."""

    async def fetch_config(self, repository: Repository, descriptor: Descriptor) -> bytes:
        """Return the verified bytes of a config."""

    def stream_blob(
        self,
        repository: Repository,
        descriptor: Descriptor,
        offset: int = 0,
        end: int | None = None,
        *,
        exact: bool = False,
    ) -> AbstractAsyncContextManager[BlobChunks]:
        """Open a blob at *offset*, up to *end* if given; a source may start at 0 and go on behind *end*.

        With *exact* it does so only where it knows no ranges: another refusal of the part is raised.
        """

    def stream_range(
        self, repository: Repository, descriptor: Descriptor, start: int, end: int
    ) -> AbstractAsyncContextManager[BlobChunks | None]:
        """Open a part of a blob beside another stream of it; None if that cannot be now.

        Asks once. Raises NoRanges for a source that answers with the whole.
        """


class Means(msgspec.Struct, frozen=True):
    """What an operation gets to work with: the source, files to write to, whom to tell."""

    source: ImageSource
    files: tuple[int, ...]
    """File descriptors, lent: the operation does not close them."""
    told: Listener
    inline: bool
    """Whether files are written in the event loop, as in a process that serves nothing else."""


class Operation(msgspec.Struct, Generic[A], frozen=True):
    """Something to ask of an origin. The kinds are the classes in `layerfs.fetch.operations`."""

    result: ClassVar[Any]
    """The type of the answer, for its way between processes."""

    @property
    def registry(self) -> str:
        """Which registry is asked."""
        raise NotImplementedError

    async def do(self, means: Means) -> A:
        """Return the answer."""
        raise NotImplementedError


class Origin(Protocol):
    """Has operations done, many at once."""

    async def ask(self, operation: Operation[A], files: tuple[int, ...] = (), told: Listener = ignore) -> A:
        """Return the answer to *operation*; *told* hears how far it is.

        When this returns, raises or is cancelled, nothing works on it any more. Raises what the source
        raises, and WorkerDied.
        """


class InProcess:
    """The origin that has operations done here; files are written by threads unless *inline*."""

    def __init__(self, source: ImageSource, *, inline: bool = False) -> None:
        self._source = source
        self._inline = inline

    async def ask(self, operation: Operation[A], files: tuple[int, ...] = (), told: Listener = ignore) -> A:
        """Do *operation*, with *files* lent to it."""
        return await operation.do(Means(self._source, files, told, self._inline))
