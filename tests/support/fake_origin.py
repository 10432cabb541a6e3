"""An origin for tests of `layerfs.fetch`: images in memory, and a switch for each way to fail at each step.

It implements the real protocol: operations are done by the product's own `InProcess`, so bytes reach files as
they do elsewhere. What fails is what a source does: the three documents fail by `failures`, each stream of a
blob goes as the next of its `deliveries` says, and then well again.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, Self, TypeVar

import trio

from layerfs.errors import LayerfsError, NotFound
from layerfs.fetch.origin import InProcess, Listener, Operation, ignore
from layerfs.oci import Descriptor, Digest, Repository, Resolved, Tag
from tests.support.images import Built

A = TypeVar("A")

Step = Literal["resolve", "manifest", "config"]


@dataclass(frozen=True)
class Delivery:
    """How one stream of a blob goes; as it stands, well."""

    refused: LayerfsError | None = None
    """Raised when it is opened."""
    until: int | None = None
    """The stream ends before this byte of the blob: quietly, or with *broken*."""
    broken: LayerfsError | None = None
    content: bytes | None = None
    """Sent in the place of the blob's bytes."""
    hold: trio.Event | None = None
    """Set by the test to let the end come."""
    from_start: bool = False
    """It starts at 0 whatever was asked for, as of a server without ranges."""


@dataclass
class FakeOrigin:
    """All of *images*, in any repository, the last one under every tag."""

    images: tuple[Built, ...]
    chunk: int = 1 << 16
    failures: dict[Step, list[LayerfsError]] = field(default_factory=lambda: defaultdict(list))
    """What the next questions of a step are answered with."""
    deliveries: list[Delivery] = field(default_factory=list)
    """How the next streams go."""
    spare: list[Delivery | None] = field(default_factory=list)
    """How the next streams beside another one go; None: there is no place for them."""
    of_registries: dict[str, list[Delivery]] = field(default_factory=dict)
    """For streams from these registries, in the place of `deliveries`; the last one goes on for ever."""
    sites: dict[str, str] = field(default_factory=dict)
    """Where registries are; one that is not here is alone at its place."""
    asked: list[str] = field(default_factory=list)
    """All questions: ``resolve TAG``, ``manifest DIGEST``, ``config DIGEST``, ``blob DIGEST OFFSET``."""
    resolved_raw: bool = False
    """Whether the document itself comes with what a tag names."""
    wanted_whole: list[bool] = field(default_factory=list)
    """Whether the document was wanted, too, each time that a tag was asked for."""
    inline: bool = False
    on_open: Callable[[], None] = lambda: None
    """Called when a stream has been opened."""

    async def ask(self, operation: Operation[A], files: tuple[int, ...] = (), told: Listener = ignore) -> A:
        """Have *operation* done by this source, as the product does."""
        return await InProcess(self, inline=self.inline).ask(operation, files, told)

    def offsets(self) -> list[int]:
        """Return where each stream of a blob was asked to start."""
        return [int(line.rpartition(" ")[2]) for line in self.asked if line.startswith("blob ")]

    def steps(self) -> list[str]:
        """Return the first words of what was asked."""
        return [line.partition(" ")[0] for line in self.asked]

    async def locate(self, registry: str) -> str:
        """Say at once where it is."""
        return self.sites.get(registry, registry)

    async def doubt(self, repository: Repository, digest: Digest, *, proven: bool) -> bool:
        """Say that nobody else has it."""
        return False

    async def resolve(self, tag: Tag, *, whole: bool = False) -> Resolved:
        """Say that the last image is meant."""
        self._ask("resolve", tag.name)
        self.wanted_whole.append(whole)
        last = self.images[-1]
        return Resolved(last.digest, last.media_type, last.manifest if self.resolved_raw else None)

    async def fetch_manifest(
        self, repository: Repository, digest: Digest, expected_size: int | None = None
    ) -> tuple[bytes, str]:
        """Return a document of an image, or an index."""
        self._ask("manifest", str(digest))
        for image in self.images:
            for document in image.manifests():
                if document.digest == digest:
                    return document.manifest, document.media_type
        raise NotFound(f"{repository}@{digest}")

    async def fetch_config(self, repository: Repository, descriptor: Descriptor) -> bytes:
        """Return the config of an image."""
        self._ask("config", str(descriptor.digest))
        return self._blob(descriptor.digest)

    @asynccontextmanager
    async def stream_blob(
        self,
        repository: Repository,
        descriptor: Descriptor,
        offset: int = 0,
        end: int | None = None,
        *,
        exact: bool = False,
    ) -> AsyncIterator["_Stream"]:
        """Open a blob as the next delivery says."""
        self.asked.append(f"blob {descriptor.digest} {offset}")
        planned = self.of_registries.get(repository.registry)
        if planned:
            delivery = planned.pop(0) if len(planned) > 1 else planned[0]
        else:
            delivery = self.deliveries.pop(0) if self.deliveries else Delivery()
        if delivery.refused is not None:
            raise delivery.refused
        self.on_open()
        start = 0 if delivery.from_start else offset
        content = self._blob(descriptor.digest) if delivery.content is None else delivery.content
        yield _Stream(start, content[start : delivery.until], self.chunk, delivery)

    @asynccontextmanager
    async def stream_range(
        self, repository: Repository, descriptor: Descriptor, start: int, end: int
    ) -> AsyncIterator["_Stream | None"]:
        """Open a part of a blob as the next of `spare` says, and then well."""
        self.asked.append(f"range {descriptor.digest} {start} {end}")
        delivery = self.spare.pop(0) if self.spare else Delivery()
        if delivery is None:
            yield None
            return
        if delivery.refused is not None:
            raise delivery.refused
        content = self._blob(descriptor.digest) if delivery.content is None else delivery.content
        stop = end if delivery.until is None else min(end, delivery.until)
        yield _Stream(start, content[start:stop], self.chunk, delivery)

    def _ask(self, step: Step, what: str) -> None:
        self.asked.append(f"{step} {what}")
        if self.failures[step]:
            raise self.failures[step].pop(0)

    def _blob(self, digest: Digest) -> bytes:
        for image in self.images:
            if digest in image.blobs():
                return image.blobs()[digest]
        raise NotFound(str(digest))


class _Stream:
    def __init__(self, offset: int, content: bytes, chunk: int, delivery: Delivery) -> None:
        self.offset = offset
        self.is_part = not delivery.from_start
        self._content = content
        self._chunk = chunk
        self._delivery = delivery

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._content:
            chunk, self._content = self._content[: self._chunk], self._content[self._chunk :]
            return chunk
        if self._delivery.hold is not None:
            await self._delivery.hold.wait()
        if self._delivery.broken is not None:
            raise self._delivery.broken
        raise StopAsyncIteration
