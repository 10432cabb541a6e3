"""The documents of an image, as far as the store has them: index, manifest, config.

Decides what is missing, and keeps what was parsed last.
"""

import logging
from collections import OrderedDict
from typing import Final

import msgspec

from layerfs.errors import ImageError, LayerfsError, NotInStore
from layerfs.needs import DocumentNeed, UnreadNeed
from layerfs.oci import Digest, Image, ImageConfig, Index, Manifest, Platform, Repository, descend
from layerfs.store import ImageStorage

log = logging.getLogger(__name__)

_KEPT: Final = 64
"""Parsed images that stay in memory without a node that holds them."""
_KEPT_BYTES: Final = 4 << 20
"""Bytes that their documents have at most; parsed they are some times as large."""


class ImageDocuments(msgspec.Struct, frozen=True):
    """What ``name@digest`` leads to, for one platform."""

    index: Index | None
    """The document itself, if it is an index."""
    manifest: Manifest | None
    image: Image | None
    problem: ImageError | None
    """Why there is no image."""

    @property
    def size(self) -> int:
        """Bytes of the documents."""
        config = None if self.image is None else self.image.config
        return sum(len(one.raw) for one in (self.index, self.manifest, config) if one is not None)


def held_document(storage: ImageStorage, digest: Digest) -> Manifest | Index | None:
    """Return a manifest or index that can be read; None for all others: only their names are known."""
    try:
        return storage.load_manifest(digest)
    except LayerfsError:
        return None


class DocumentReader:
    """Reads documents, and keeps the last ones. Not thread-safe.

    With *leave_large* whoever reads has others to serve: large ones that were not read of late are a need.
    """

    def __init__(self, storage: ImageStorage, platform: Platform, *, leave_large: bool = False) -> None:
        self._leave_large = leave_large
        self._storage = storage
        self._platform = platform
        self._recent: OrderedDict[Digest, ImageDocuments] = OrderedDict()
        self._size = 0

    def read(self, repository: Repository, digest: Digest) -> ImageDocuments | DocumentNeed:
        """Return all documents of an image, or the need for the first one that the store does not have.

        Raises StoreError for a document that cannot be read, ImageError for one that is no manifest.
        """
        found = self._recent.get(digest)
        if found is None:
            loaded = self._load(repository, digest)
            if isinstance(loaded, DocumentNeed):
                return loaded
            self._recent[digest] = found = loaded
            self._size += found.size
            while len(self._recent) > _KEPT or (self._size > _KEPT_BYTES and len(self._recent) > 1):
                self._size -= self._recent.popitem(last=False)[1].size
        else:
            self._recent.move_to_end(digest)
        return found

    def is_complete(self, repository: Repository, digest: Digest) -> bool:
        """Say whether the directory of an image can be entered without a request."""
        try:
            return isinstance(self.read(repository, digest), ImageDocuments | UnreadNeed)
        except LayerfsError as exc:
            log.debug("%s@%s: not listed: %s", repository, digest, exc)
            return False

    def _load(self, repository: Repository, digest: Digest) -> ImageDocuments | DocumentNeed:
        document = self._read_before(digest)
        if document is None:
            return self._need(repository, digest, digest)
        index = document if isinstance(document, Index) else None
        try:
            found = descend(document, self._platform, self._read_before)
        except ImageError as exc:
            return ImageDocuments(index, None, None, exc)
        if isinstance(found, Manifest):
            return self._with_config(repository, found, index)
        return self._need(repository, found.digest, found.digest)

    def _need(self, repository: Repository, digest: Digest, missing: Digest) -> DocumentNeed:
        """Return the need for the document *digest* and for what is *missing* of what it names."""
        kind = UnreadNeed if self._is_left(missing) else DocumentNeed
        return kind(repository, digest)

    def _read_before(self, digest: Digest) -> Manifest | Index | None:
        """Return a manifest or index; None, too, for a large one that was not read of late."""
        return None if self._is_left(digest) else self.document(digest)

    def _is_left(self, digest: Digest) -> bool:
        return self._leave_large and self._storage.is_unread(digest)

    def _with_config(
        self, repository: Repository, manifest: Manifest, index: Index | None
    ) -> ImageDocuments | DocumentNeed:
        try:
            manifest.require_image()
            wanted = manifest.config.digest
            config = None if self._is_left(wanted) else self._config(wanted)
            if config is None:
                return self._need(repository, manifest.digest, wanted)
            return ImageDocuments(index, manifest, Image.of(manifest, config), None)
        except ImageError as exc:
            return ImageDocuments(index, manifest, None, exc)

    def document(self, digest: Digest) -> Manifest | Index | None:
        """Return one manifest or index, None if the store does not have it. Raises as `read` does."""
        try:
            return self._storage.load_manifest(digest)
        except NotInStore:
            return None

    def _config(self, digest: Digest) -> ImageConfig | None:
        try:
            return self._storage.load_config(digest)
        except NotInStore:
            return None
