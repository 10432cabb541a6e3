"""What layerfs asks of registries: to resolve, to give, to take (distribution-spec 1.1, "Pull", "Push").

Verifies manifests and configs against their digests; blobs are verified by whoever writes them.
Whether a registry may be asked at all is decided here too, by name, before anything is sent.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

import msgspec
import trio

from layerfs.errors import (
    Denied,
    DigestMismatch,
    InvalidDigest,
    NoRanges,
    Offline,
    RegistryMisbehaved,
    SizeMismatch,
)
from layerfs.foreign import NAME, printable
from layerfs.oci import Descriptor, Digest, Repository, Resolved, Tag, mediatype
from layerfs.oci.documents import MAX_DOCUMENT_SIZE
from layerfs.registry import blob, paging, upload
from layerfs.registry.blob import BlobStream
from layerfs.registry.body import Body
from layerfs.registry.calls import Call
from layerfs.registry.hosts import BlobOf, Greeting, ManifestOf, TagsOf
from layerfs.registry.ranges import ALL, Range
from layerfs.registry.reply import Reply
from layerfs.registry.requester import Requester
from layerfs.registry.settings import RegistrySettings
from layerfs.registry.traffic import Traffic
from layerfs.registry.transport import Transport

_log = logging.getLogger("layerfs.registry")
_ACCEPT: Final = ", ".join(mediatype.ACCEPT_MANIFESTS)
_ANY: Final = frozenset[int]()


class RegistryClient:
    """Asks registries. An async context manager; its methods may be called from many tasks at once.

    All of them raise Offline, NotFound, Denied, RateLimited, Unreachable, RegistryTimeout or
    RegistryMisbehaved, and InvalidSettings for a proxy or certificate that cannot be used.
    """

    def __init__(self, settings: RegistrySettings | None = None) -> None:
        self._settings = settings or RegistrySettings()
        self._transport = Transport(self._settings)
        self._requester = Requester(self._settings, self._transport)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.__aexit__()

    @property
    def traffic(self) -> Traffic:
        """What came, since somebody has taken it."""
        return self._transport.traffic

    async def locate(self, registry: str) -> str:
        """Say at which site *registry* is, once it is connected to for another reason."""
        return await self._requester.site(registry)

    async def resolve(self, tag: Tag, *, whole: bool = False) -> Resolved:
        """Say which digest *tag* names: one HEAD where the registry answers it in full, else a GET.

        With *whole* the document is wanted as well: a GET brings both, unless others may be asked for a
        document than for a tag, as mirrors are, which spare the registry what it counts.

        Raises NotFound for an unknown repository or tag, DigestMismatch if the registry contradicts itself.
        """
        repository, what = tag.repository, f"manifest {tag}"
        self._require_allowed(repository.registry, what)
        call = Call(what=what, target=ManifestOf(repository, tag.name), accept=_ACCEPT)
        by_digest = ManifestOf(repository, Digest.of(b""))  # whoever is asked for one, is for any
        if not (whole and self._requester.asks_alike(call.target, by_digest)):
            async with self._open(msgspec.structs.replace(call, method="HEAD", statuses=_ANY)) as reply:
                digest = _announced(reply)
                if reply.status == 200 and digest is not None:
                    return Resolved(digest, _media_type(reply), None)
        # No digest, HEAD not allowed, or an error, whose reason only an answer with a body tells.
        raw, reply = await self._document(call)
        announced = _announced(reply)
        digest = Digest.of(raw, announced.algorithm if announced else "sha256")
        if announced not in (None, digest):
            raise DigestMismatch(f"{what}: the bytes hash to {digest} (expected {announced}, as announced)")
        return Resolved(digest, _media_type(reply), raw)

    async def fetch_manifest(
        self, repository: Repository, digest: Digest, expected_size: int | None = None
    ) -> tuple[bytes, str]:
        """Return the verified bytes of a manifest or index, and its announced media type.

        Raises SizeMismatch or DigestMismatch for other bytes.
        """
        what = f"manifest {repository}@{digest}"
        self._require_allowed(repository.registry, what)
        call = Call(
            what=what,
            target=ManifestOf(repository, digest),
            accept=_ACCEPT,
            check=lambda raw: digest.check(raw, what, size=expected_size),
        )
        raw, reply = await self._document(call)
        return raw, _media_type(reply)

    async def fetch_config(self, repository: Repository, descriptor: Descriptor) -> bytes:
        """Return the verified bytes of a config, at most 4 MiB.

        Raises SizeMismatch or DigestMismatch for other bytes.
        """
        what = f"config {descriptor.digest} of {repository}"
        if descriptor.size > MAX_DOCUMENT_SIZE:
            raise SizeMismatch(f"{what}: {descriptor.size} bytes (expected at most {MAX_DOCUMENT_SIZE})")
        inline = _inline(descriptor)
        if inline is not None:
            return inline
        self._require_allowed(repository.registry, what)
        call = Call(
            what=what,
            target=BlobOf(repository, descriptor.digest),
            check=lambda raw: descriptor.digest.check(raw, what, size=descriptor.size),
        )
        raw, _ = await self._document(call)
        return raw

    async def doubt(self, repository: Repository, digest: Digest, *, proven: bool) -> bool:
        """Take note that other bytes were given for a blob; say whether others can be asked for it."""
        await trio.lowlevel.checkpoint()
        return self._requester.doubt(repository, digest, proven=proven)

    @asynccontextmanager
    async def stream_blob(
        self,
        repository: Repository,
        descriptor: Descriptor,
        offset: int = 0,
        end: int | None = None,
        *,
        exact: bool = False,
    ) -> AsyncIterator[BlobStream]:
        """Open a blob at *offset*, up to *end* if given; `BlobStream.offset` says where the server starts.

        Not verified. A server that knows no ranges starts at 0, and sends more than was asked for. With
        *exact* only that part is of use: a refusal is told, unless it says that there are no ranges.

        What entering raises was retried already. What iterating raises can be met by opening again at
        the new offset; `Backoff` says when and how often.
        """
        stream = await self._open_blob(repository, descriptor, offset, end, exact=exact)
        try:
            yield stream
        finally:
            await stream.aclose()

    @asynccontextmanager
    async def stream_range(
        self, repository: Repository, descriptor: Descriptor, start: int, end: int
    ) -> AsyncIterator[BlobStream | None]:
        """Open the bytes from *start* to before *end* of a blob beside another stream of it.

        Asks once. None if all downloads that may run are running. Raises NoRanges where no range is sent.
        """
        what = f"blob {descriptor.digest} of {repository}"
        self._require_allowed(repository.registry, what)
        target = BlobOf(repository, descriptor.digest)
        call = Call(what=what, target=target, range=Range(start, end - 1))
        if self._settings.foreign_urls and descriptor.urls:
            raise NoRanges(f"{what}: a foreign layer, from servers that are no registries")
        stream = await blob.open_range(self._requester, call, descriptor)
        try:
            yield stream
        finally:
            if stream is not None:
                await stream.aclose()

    async def tags(self, repository: Repository) -> list[str]:
        """Return the tags of a repository in the registry's order; [] if it has none.

        Raises NotFound for an unknown repository.
        """
        what = f"tags of {repository}"
        self._require_allowed(repository.registry, what)
        found: dict[str, None] = {}
        target = TagsOf(repository)
        for _ in range(paging.MAX_PAGES):
            call = Call(what=what, target=target, accept="application/json")
            raw, reply = await self._document(call)
            before = len(found)
            found |= dict.fromkeys(paging.parse_tags(raw, what))
            query = paging.next_page(reply.header_list("link"))
            if query is None or len(found) == before:  # a page that adds nothing could be the last one again
                return list(found)
            target = TagsOf(repository, query)
        raise RegistryMisbehaved(f"{what}: more than {paging.MAX_PAGES} pages")

    async def push_blob(
        self, repository: Repository, digest: Digest, body: Body, source: Repository | None = None
    ) -> upload.Way:
        """Have a blob in *repository*; *source* is another one of the registry that may have it.

        Raises StoreDamaged if *body* is not what it should be.
        """
        self._require_allowed(repository.registry, f"push to {repository}")
        return await upload.push_blob(self._requester, repository, digest, body, source)

    async def push_manifest(
        self, repository: Repository, reference: str | Digest, digest: Digest, body: Body
    ) -> None:
        """Put a manifest or index under a tag or its digest, once all that it names is there.

        Raises DigestMismatch if the registry takes it for another.
        """
        self._require_allowed(repository.registry, f"push to {repository}")
        await upload.push_manifest(self._requester, repository, reference, digest, body)

    async def check_login(self, registry: str) -> None:
        """Make sure that *registry* lets us in, with what credentials there are.

        Raises Denied if it does not, and what says which credentials were used.
        """
        what = f"login to {registry}"
        self._require_allowed(registry, what)
        async with self._open(Call(what=what, target=Greeting(registry))) as reply:
            await reply.drain()

    async def _open_blob(
        self, repository: Repository, descriptor: Descriptor, offset: int, end: int | None, *, exact: bool
    ) -> BlobStream:
        what = f"blob {descriptor.digest} of {repository}"
        inline = _inline(descriptor)
        stop = descriptor.size if end is None else min(end, descriptor.size)
        if inline is not None or (offset >= stop and descriptor.size > 0):
            return BlobStream(what, offset, stop, None, (inline or b"")[offset:stop])
        self._require_allowed(repository.registry, what)
        # Closed: there are servers that do not answer an open one.
        wanted = ALL if offset == 0 and stop == descriptor.size else Range(offset, stop - 1)
        call = Call(what=what, target=BlobOf(repository, descriptor.digest), range=wanted)
        if self._settings.foreign_urls and descriptor.urls:
            foreign = await blob.open_foreign(self._requester, call, descriptor)
            if foreign is not None:
                return foreign
        return await blob.open_blob(self._requester, call, descriptor, exact=exact)

    async def _document(self, call: Call) -> tuple[bytes, Reply]:
        async with self._open(msgspec.structs.replace(call, limit=MAX_DOCUMENT_SIZE)) as reply:
            return await reply.read(MAX_DOCUMENT_SIZE, call.what), reply

    @asynccontextmanager
    async def _open(self, call: Call) -> AsyncIterator[Reply]:
        reply = await self._requester.open(call)
        try:
            yield reply
        finally:
            await reply.aclose()

    def _require_allowed(self, registry: str, what: str) -> None:
        """Raise Denied or Offline unless *registry* may be asked."""
        allowed = self._settings.allowed
        if allowed is not None and registry not in allowed:
            raise Denied(
                f"{what}: the mount may not contact {registry} "
                f"({f'only {names}' if (names := ', '.join(sorted(allowed))) else 'it may contact none'}); "
                f"mount with --registries {registry}"
            )
        if self._settings.offline:
            raise Offline(f"{what}: not in the store, and offline; run without --offline to fetch it")


def _media_type(reply: Reply) -> str:
    return printable(str(reply.headers.get("content-type", "")).partition(";")[0].strip().lower(), NAME)


def _announced(reply: Reply) -> Digest | None:
    try:
        return Digest.parse(reply.headers.get("docker-content-digest", "").strip())
    except InvalidDigest:
        return None


def _inline(descriptor: Descriptor) -> bytes | None:
    """Return the content that the descriptor embeds, if it is the right one (image-spec, descriptor.md)."""
    data = descriptor.data
    if data is None:
        return None
    if len(data) == descriptor.size and Digest.of(data, descriptor.digest.algorithm) == descriptor.digest:
        return data
    _log.warning("descriptor of %s embeds other bytes; fetching it instead", descriptor.digest)
    return None
