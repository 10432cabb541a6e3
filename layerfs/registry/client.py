"""What layerfs asks of registries: resolve, manifest, config, blob, tags (distribution-spec 1.1, "Pull").

Verifies manifests and configs against their digests; blobs are verified by whoever writes them.
Whether a registry may be asked at all is decided by the callers, except for ``offline``.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self

import trio

from layerfs.errors import DigestMismatch, InvalidDigest, Offline, RegistryTimeout, SizeMismatch
from layerfs.oci import Descriptor, Digest, Repository, mediatype
from layerfs.oci.documents import MAX_DOCUMENT_SIZE
from layerfs.registry import ranges
from layerfs.registry.blob import BlobStream
from layerfs.registry.endpoint import Endpoint, endpoints
from layerfs.registry.requester import Call, Requester
from layerfs.registry.settings import RegistrySettings
from layerfs.registry.transport import Reply, Transport

_log = logging.getLogger("layerfs.registry")
_ACCEPT: Final = ", ".join(mediatype.ACCEPT_MANIFESTS)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a tag names now."""

    digest: Digest
    media_type: str
    """As announced, without parameters; empty if the registry said nothing useful."""
    raw: bytes | None
    """The manifest itself, verified, where the registry could not say its digest without it."""


class RegistryClient:
    """Asks registries. An async context manager; its methods may be called from many tasks at once.

    All of them raise Offline, NotFound, Denied, RateLimited, Unreachable, RegistryTimeout or
    RegistryMisbehaved.
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

    async def resolve(self, repository: Repository, tag: str) -> Resolved:
        """Say which digest *tag* names: one HEAD where the registry answers it in full, else a GET.

        Raises NotFound for an unknown repository or tag.
        """
        what = f"manifest {repository}:{tag}"
        self._require_online(what)
        endpoint = self._endpoint(repository)
        url = endpoint.manifest(repository.path, tag)
        async with self._open(Call(what, endpoint, repository.path, "HEAD", url, _ACCEPT)) as reply:
            digest = _announced(reply)
            if reply.status == 200 and digest is not None:
                return Resolved(digest, _media_type(reply), None)
        # No digest, HEAD not allowed, or an error, whose reason only an answer with a body tells.
        raw, reply = await self._document(Call(what, endpoint, repository.path, "GET", url, _ACCEPT))
        announced = _announced(reply)
        digest = Digest.of(raw, announced.algorithm if announced else "sha256")
        if announced not in (None, digest):
            raise DigestMismatch(f"{what}: {digest} (expected {announced}, as the registry announced)")
        return Resolved(digest, _media_type(reply), raw)

    async def fetch_manifest(
        self, repository: Repository, digest: Digest, expected_size: int | None = None
    ) -> tuple[bytes, str]:
        """Return the verified bytes of a manifest or index, and its announced media type.

        Raises SizeMismatch or DigestMismatch for other bytes.
        """
        what = f"manifest {repository}@{digest}"
        self._require_online(what)
        endpoint = self._endpoint(repository)
        url = endpoint.manifest(repository.path, str(digest))
        raw, reply = await self._document(Call(what, endpoint, repository.path, "GET", url, _ACCEPT))
        _verify(raw, digest, expected_size, what)
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
        self._require_online(what)
        endpoint = self._endpoint(repository)
        url = endpoint.blob(repository.path, str(descriptor.digest))
        raw, _ = await self._document(Call(what, endpoint, repository.path, "GET", url))
        _verify(raw, descriptor.digest, descriptor.size, what)
        return raw

    @asynccontextmanager
    async def stream_blob(
        self, repository: Repository, descriptor: Descriptor, offset: int = 0
    ) -> AsyncIterator[BlobStream]:
        """Open a blob at *offset*; `BlobStream.offset` says where the server starts. Not verified.

        Entering has retried already; what iterating raises may be met by opening again at the new offset.
        """
        what = f"blob {descriptor.digest} of {repository}"
        inline = _inline(descriptor)
        if inline is not None:
            yield BlobStream(what, offset, descriptor.size, None, inline[offset:])
            return
        self._require_online(what)
        endpoint = self._endpoint(repository)
        url = endpoint.blob(repository.path, str(descriptor.digest))
        async with self._open_blob(
            Call(what, endpoint, repository.path, "GET", url, first_byte=offset, download=True),
            descriptor,
        ) as stream:
            yield stream

    @asynccontextmanager
    async def _open_blob(self, call: Call, descriptor: Descriptor) -> AsyncIterator[BlobStream]:
        reply = await self._requester.open(call)
        try:
            if reply.status == 416 and call.first_byte:
                await reply.aclose()
                reply = await self._requester.open_whole(call, 0)
            if reply.status not in (200, 206):
                raise (await reply.problem()).error(call.what, call.endpoint.registry)
            start = ranges.start_of_body(call.first_byte, descriptor.size, reply.status, reply.headers)
            yield BlobStream(call.what, start or 0, descriptor.size, reply)
        finally:
            await reply.aclose()

    async def _document(self, call: Call) -> tuple[bytes, Reply]:
        with trio.move_on_after(self._settings.document_timeout):
            async with self._open(call) as reply:
                if reply.status != 200:
                    raise (await reply.problem()).error(call.what, call.endpoint.registry)
                return await reply.read(MAX_DOCUMENT_SIZE, call.what), reply
        raise RegistryTimeout(
            f"{call.what}: not complete after {self._settings.document_timeout:.0f} s; try again later"
        )

    @asynccontextmanager
    async def _open(self, call: Call) -> AsyncIterator[Reply]:
        reply = await self._requester.open(call)
        try:
            yield reply
        finally:
            await reply.aclose()

    def _endpoint(self, repository: Repository) -> Endpoint:
        return endpoints(repository.registry, self._settings.insecure)[0]

    def _require_online(self, what: str) -> None:
        if self._settings.offline:
            raise Offline(f"{what}: not in the store, and offline; run without --offline to fetch it")


def _media_type(reply: Reply) -> str:
    return str(reply.headers.get("content-type", "")).partition(";")[0].strip().lower()


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


def _verify(raw: bytes, digest: Digest, size: int | None, what: str) -> None:
    if size is not None and len(raw) != size:
        raise SizeMismatch(f"{what}: {len(raw)} bytes (expected {size})")
    found = Digest.of(raw, digest.algorithm)
    if found != digest:
        raise DigestMismatch(f"{what}: the bytes hash to {found} (expected {digest})")
