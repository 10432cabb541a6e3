"""What somebody may have to wait for: values, returned by whoever cannot answer yet, met by a `Provider`.

An operation of the view either answers or returns a `Need`. Only the kernel edge and the command line wait:
they have the provider obtain what is needed and ask again. So who waits for what is decided without I/O.
"""

from typing import Final, Protocol

import msgspec

from layerfs.oci import Descriptor, Digest, Image, Repository, Tag

WAITERS: Final = 20_000
"""Callers that may wait at the same time. One costs 8 kB and 1 MiB of address space; more are an attack or a
loop."""


class Need:
    """What has to exist before an operation can answer. The kinds are the classes below."""

    __slots__ = ()
    repository: Repository
    """Where it is to come from."""


class TagNeed(msgspec.Struct, Need, frozen=True):
    """Resolve a tag that the store does not know."""

    tag: Tag

    @property
    def repository(self) -> Repository:  # type: ignore[override]
        """That of the tag."""
        return self.tag.repository


class DocumentNeed(msgspec.Struct, Need, frozen=True):
    """Fetch a manifest or index by digest, and for an image its config."""

    repository: Repository
    digest: Digest

    def leading_on(self) -> "DocumentNeed":
        """Return the same for who goes on to what the layers hold."""
        return WayNeed(self.repository, self.digest)


class WayNeed(DocumentNeed, frozen=True):
    """The same on the way to what its layers hold: what lists their files will be needed next."""


class UnreadNeed(DocumentNeed, frozen=True):
    """Read the documents of an image, which are here, where that holds nobody up: one of them is large."""

    def leading_on(self) -> DocumentNeed:
        """Return this: nothing is fetched."""
        return self


class LayersNeed(msgspec.Struct, Need, frozen=True):
    """Fetch, verify and extract these layers of an image, in parallel."""

    repository: Repository
    image: Image
    numbers: tuple[int, ...]


class TocNeed(msgspec.Struct, Need, frozen=True):
    """Have what lists the files of these layers: the skeleton of a lazy one, any other layer itself."""

    repository: Repository
    image: Image
    numbers: tuple[int, ...]


class FileNeed(msgspec.Struct, Need, frozen=True):
    """Fetch and verify what one file of a lazy layer holds."""

    repository: Repository
    image: Image
    number: int
    toc: Digest
    """The TOC that lists the file; its skeleton is here."""
    id: str
    """The object that its bytes are."""
    is_sure: bool = True
    """Whether the TOC is known to name the object; else it is looked up, and need not."""
    others: tuple["FileNeed", ...] = ()
    """What has the same bytes: tried in turn where this fails."""
    is_rung: bool = False
    """Whether a container has opened it, in an overlay on skeletons."""


class StackNeed(msgspec.Struct, Need, frozen=True):
    """Have all layers of an image extracted, and its cover published."""

    repository: Repository
    image: Image


class BlobNeed(msgspec.Struct, Need, frozen=True):
    """Fetch and verify one compressed blob; extract nothing."""

    repository: Repository
    descriptor: Descriptor


class Provider(Protocol):
    """Makes needed things exist in the store; `layerfs.fetch.Fetcher` is one."""

    async def obtain(self, need: Need) -> None:
        """Return once *need* is met. Raises a LayerfsError that says why it cannot be.

        Cancelling the call ends this wait, never the work that others wait for.
        """
