"""What the store answers to an ask; what it lacks is fetched where that is allowed.

Reads documents and looks for blobs in threads. Only what has a final name in the store is given, and
documents are hashed once more: a stranger gets verified bytes, or is told that there are none.
"""

import json
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import trio

from layerfs.catalog.documents import held_document
from layerfs.errors import (
    Denied,
    ImageError,
    InvalidReference,
    LayerfsError,
    NotFound,
    NotInStore,
    RateLimited,
    StoreDamaged,
    StoreError,
)
from layerfs.needs import BlobNeed, DocumentNeed, Need, Provider, TagNeed
from layerfs.oci import Digest, Manifest, Repository, documents_below
from layerfs.oci.mediatype import OCI_INDEX
from layerfs.serve.asks import Ask, BlobAsk, ManifestAsk, ReferrersAsk, TagsAsk, VersionAsk
from layerfs.serve.names import Names
from layerfs.serve.replies import BYTES, JSON, Answer, Header, Refused, Served
from layerfs.store import ImageStorage

_NO_REFERRERS: Final = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
_READERS: Final = 16
"""Threads that look into the store."""
_LATER: Final[Header] = ("Retry-After", "5")

T = TypeVar("T")
log = logging.getLogger(__name__)


class Distribution:
    """Answers asks from *storage*.

    With a *provider* it obtains what is missing of the repositories that *names* allows, and waits for it for
    *patience* seconds.
    """

    def __init__(
        self, storage: ImageStorage, names: Names, provider: Provider | None = None, patience: float = 900.0
    ) -> None:
        self._storage = storage
        self._names = names
        self._provider = provider
        self._patience = patience
        self._readers = trio.CapacityLimiter(_READERS)

    async def answer(self, ask: Ask) -> Served | Answer:
        """Return what *ask* is for. Raises Refused."""
        match ask:
            case VersionAsk():
                return Answer(200, (("Content-Type", JSON),), b"{}")
            case ReferrersAsk():
                return Answer(200, (("Content-Type", OCI_INDEX),), _NO_REFERRERS)
            case TagsAsk():
                return await self._read(partial(self._tags, ask))
            case ManifestAsk():
                return await self._content(ask, partial(self._manifest, ask))
            case BlobAsk():
                return await self._content(ask, partial(self._blob, ask))

    async def _content(self, ask: ManifestAsk | BlobAsk, find: Callable[[], Served | Refused]) -> Served:
        """Return what *find* finds, which returns the answer for what strangers may have and is not here."""
        found = await self._read(find)
        if isinstance(found, Refused) and self._provider is not None:
            await self._fetch(ask, self._provider)
            found = await self._read(find)
        if isinstance(found, Refused):
            raise found
        return found

    async def _read(self, look: Callable[[], T]) -> T:
        """Look into the store in a thread. Raises Refused, also for a disk that fails."""
        try:
            return await trio.to_thread.run_sync(look, limiter=self._readers)
        except InvalidReference as exc:  # together with its tag the name is too long for a file
            raise Refused(404, "NAME_UNKNOWN", str(exc)) from exc
        except (StoreError, OSError) as exc:
            log.warning("a request could not be answered: %s", exc)
            raise Refused(503, "UNAVAILABLE", "the store cannot be read now", _LATER) from exc

    # From the store; these block

    def _tags(self, ask: TagsAsk) -> Answer:
        repository = self._names.meant(ask.name)
        tags = self._storage.refs.tags(repository)
        if not tags:
            raise Refused(404, "NAME_UNKNOWN", f"{ask.name}: no tag of it is pinned here")
        behind = [tag for tag in tags if tag > ask.last]
        some = behind[: ask.most]
        more: tuple[Header, ...] = ()
        if some and len(some) < len(behind):
            where = f"/v2/{ask.name.path}/tags/list?n={ask.most}&last={some[-1]}&ns={repository.registry}"
            more = (("Link", f'<{where}>; rel="next"'),)
        body = json.dumps({"name": ask.name.path, "tags": some}).encode()
        return Answer(200, (("Content-Type", JSON), *more), body)

    def _manifest(self, ask: ManifestAsk) -> Served | Refused:
        missing = Refused(404, "MANIFEST_UNKNOWN", f"{ask.name}: {ask.target} is not here")
        if isinstance(ask.target, Digest):
            digest = ask.target
            may_be_fetched = self._provider is not None and not self._storage.has_manifest(digest)
            if may_be_fetched and digest not in self._names.reach(self._names.meant(ask.name)):
                return missing
            self._names.refuse_others(ask.name, digest)
        else:
            entry = self._storage.refs.read(self._names.meant(ask.name).with_tag(ask.target))
            if entry is None:
                return missing
            digest = entry.digest
        try:
            document = self._storage.load_manifest(digest)
        except NotInStore:
            return missing
        except (StoreDamaged, ImageError) as exc:
            log.warning("%s: not served: %s", digest, exc)
            return missing
        return Served(digest, document.media_type, document.raw)

    def _blob(self, ask: BlobAsk) -> Served | Refused:
        storage, digest = self._storage, ask.digest
        self._names.refuse_others(ask.name, digest)
        blob = storage.open_blob(digest)
        if blob is not None:
            return Served(digest, BYTES, blob)
        try:
            return Served(digest, BYTES, storage.read_config(digest))
        except NotInStore:
            why = "is not here"
        except StoreDamaged as exc:
            log.warning("%s: not served: %s", digest, exc)
            why = "is damaged here"
        if storage.has_tree(digest):
            why = (
                "is here only as the directory that was extracted of it: its compressed bytes were removed "
                "(expected of another mirror, or of the registry)"
            )
        return Refused(404, "BLOB_UNKNOWN", f"{ask.name}: {digest} {why}")

    # From a registry

    async def _fetch(self, ask: ManifestAsk | BlobAsk, provider: Provider) -> None:
        """Have *provider* obtain what *ask* is for. Raises Refused, which tells nothing of logins."""
        repository = await self._read(lambda: self._names.meant(ask.name))
        need = await self._read(partial(self._need, ask, repository))
        if need is None:
            return
        try:
            with trio.fail_after(self._patience):
                await provider.obtain(need)
        except trio.TooSlowError:
            raise Refused(503, "UNAVAILABLE", f"{ask.name}: is being fetched; ask again", _LATER) from None
        except LayerfsError as exc:
            if not isinstance(need, DocumentNeed) or not self._storage.has_manifest(need.digest):
                log.info("%s: not fetched: %s", ask, exc)
                raise _told(exc, str(ask.name)) from exc
        await self._read(partial(self._keep, ask, repository))

    def _need(self, ask: ManifestAsk | BlobAsk, repository: Repository) -> Need | None:
        """Return what has to be obtained; None for a blob of which no document here says anything."""
        if isinstance(ask, ManifestAsk):
            if isinstance(ask.target, Digest):
                return DocumentNeed(repository, ask.target)
            return TagNeed(repository.with_tag(ask.target))
        for target in self._storage.refs.targets(repository):
            for document in documents_below(target, partial(held_document, self._storage)):
                if isinstance(document, Manifest):
                    if document.config.digest == ask.digest:
                        return DocumentNeed(repository, document.digest)
                    for layer in document.layers:
                        if layer.digest == ask.digest:
                            return BlobNeed(repository, layer)
        return None

    def _keep(self, ask: ManifestAsk | BlobAsk, repository: Repository) -> None:
        """Have the repository lead to what came of it, else it would be neither served nor kept."""
        self._names.forget(repository)
        digest = ask.target if isinstance(ask, ManifestAsk) else None
        if isinstance(digest, Digest) and digest not in self._names.reach(repository):
            self._storage.refs.keep(repository, digest)
            self._names.forget(repository)


def _told(error: LayerfsError, what: str) -> Refused:
    """Return what a stranger is told of an error, the text of which is not for him."""
    kind = type(error).__name__
    if isinstance(error, NotFound | Denied):
        return Refused(404, "NAME_UNKNOWN", f"{what}: the registry does not give it")
    if isinstance(error, RateLimited):
        return Refused(429, "TOOMANYREQUESTS", f"{what}: the registry wants fewer requests", _LATER)
    return Refused(502, "UNAVAILABLE", f"{what}: cannot be fetched ({kind}); the log of this server says why")
