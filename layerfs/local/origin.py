"""A local source in the place of a registry: a `layerfs.fetch.origin.ImageSource`, answered from files.

Verifies documents against their digests; blobs are verified by whoever writes them, as those of registries.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import trio

from layerfs.errors import NotFound, SizeMismatch
from layerfs.local.contents import Contents, SourceImage, by_name, choose
from layerfs.local.name import SourceName
from layerfs.local.opening import open_source
from layerfs.local.pieces import FilePart, open_file, read_at
from layerfs.oci import Descriptor, Digest, Platform, Repository, Resolved, Tag
from layerfs.oci.documents import MAX_DOCUMENT_SIZE

_CHUNK: Final = 1 << 20


class LocalOrigin:
    """Answers for the images of one source, under the references that they were given."""

    def __init__(
        self,
        contents: Contents,
        what: str,
        tags: Mapping[Tag, SourceImage],
        *,
        link: bool = True,
    ) -> None:
        self._contents = contents
        self._link = link
        self._what = what
        self.tags = tags

    @property
    def key(self) -> Digest:
        """What its images are together: the digest of the only one, else one over all of theirs."""
        digests = sorted({str(image.digest) for image in self.tags.values()})
        return (
            Digest.parse(digests[0]) if len(digests) == 1 else Digest.of("\n".join(digests).encode("ascii"))
        )

    async def locate(self, registry: str) -> str:
        """Say that all images are at one place."""
        await trio.lowlevel.checkpoint()
        return self._what

    async def doubt(self, repository: Repository, digest: Digest, *, proven: bool) -> bool:
        """Say that nobody else has its blobs."""
        await trio.lowlevel.checkpoint()
        return False

    async def resolve(self, tag: Tag, *, whole: bool = False) -> Resolved:
        """Say which digest *tag* names. Raises NotFound."""
        found = self.tags.get(tag)
        if found is None:
            raise NotFound(f"{tag}: not in {self._what}, and no registry is asked")
        return Resolved(found.digest, "", None)

    async def fetch_manifest(
        self, repository: Repository, digest: Digest, expected_size: int | None = None
    ) -> tuple[bytes, str]:
        """Return the verified bytes of a manifest or index. Raises NotFound, VerificationError."""
        return await self._document(digest, expected_size, f"manifest {digest}"), ""

    async def fetch_config(self, repository: Repository, descriptor: Descriptor) -> bytes:
        """Return the verified bytes of a config. Raises NotFound, VerificationError."""
        return await self._document(descriptor.digest, descriptor.size, f"config {descriptor.digest}")

    @asynccontextmanager
    async def stream_blob(
        self,
        repository: Repository,
        descriptor: Descriptor,
        offset: int = 0,
        end: int | None = None,
        *,
        exact: bool = False,
    ) -> AsyncIterator["PieceStream"]:
        """Open a blob at *offset*, up to *end* if given, which is always exact. Not verified.

        Raises NotFound, SizeMismatch, StoreError.
        """
        found = await self._find(descriptor.digest, f"blob {descriptor.digest}")
        size = len(found) if isinstance(found, bytes) else found.size
        if size != descriptor.size:
            raise SizeMismatch(
                f"{descriptor.digest}: {size} bytes in {self._what} (expected {descriptor.size})"
            )
        if isinstance(found, bytes):
            yield PieceStream(offset, size, found[offset:end], None, -1)
            return
        fd = await trio.to_thread.run_sync(open_file, found.path)
        try:
            yield PieceStream(offset, size if end is None else min(end, size), b"", found, fd)
        finally:
            os.close(fd)

    @asynccontextmanager
    async def stream_range(
        self, repository: Repository, descriptor: Descriptor, start: int, end: int
    ) -> AsyncIterator["PieceStream | None"]:
        """Open a part of a blob, as `stream_blob` does. A disk gives a second reader nothing."""
        async with self.stream_blob(repository, descriptor, start, end) as stream:
            yield stream

    def blob_file(self, descriptor: Descriptor) -> Path | None:
        """Return the file that holds exactly the blob, so that it can be linked; None if none does."""
        if not self._link:
            return None
        found = self._contents.find(descriptor.digest)
        return found.path if isinstance(found, FilePart) and found.is_file else None

    async def _document(self, digest: Digest, size: int | None, what: str) -> bytes:
        found = await self._find(digest, what)
        if isinstance(found, FilePart):
            found = await trio.to_thread.run_sync(found.read, MAX_DOCUMENT_SIZE)
        digest.check(found, f"{what} in {self._what}", size=size)
        return found

    async def _find(self, digest: Digest, what: str) -> FilePart | bytes:
        found = await trio.to_thread.run_sync(self._contents.find, digest)
        if found is None:
            raise NotFound(f"{what}: not in {self._what} (is it incomplete?)")
        return found


class PieceStream:
    """Bytes of a blob from ``offset`` to *end*, in chunks: *inline*, or those of *piece*."""

    def __init__(self, offset: int, end: int, inline: bytes, piece: FilePart | None, fd: int) -> None:
        self.offset = offset
        self._end = end
        self._inline = inline
        self._piece = piece
        self._fd = fd
        self._position = offset

    @property
    def is_part(self) -> bool:
        """Whether no more comes than was asked for."""
        return True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = self._piece
        if piece is None:
            chunk, self._inline = self._inline, b""
        else:
            size = min(_CHUNK, self._end - self._position)
            chunk = await trio.to_thread.run_sync(
                read_at, self._fd, piece.offset + self._position, max(0, size), piece.path
            )
            self._position += len(chunk)
        if not chunk:
            raise StopAsyncIteration
        return chunk


def open_local(source: SourceName, wanted: Platform) -> LocalOrigin:
    """Open *source*; its images are known by the names that they carry, one of them if *source* names it.

    Of several for different platforms, that for *wanted* is taken.

    Raises NotFound if it holds none, UsageError, ImageError, StoreError.
    """
    contents = open_source(source)
    if not contents.images:
        raise NotFound(f"{source}: holds no image")
    if source.image:
        image = choose(contents.images, source, wanted)
        tags = {image.tag(source): image}
    else:
        tags = by_name(contents.images, source, wanted)
    return LocalOrigin(contents, str(source), tags)
