"""Manifests, indexes and configs: exact bytes in, parsed values out, verified in both directions.

Decides when a file may be believed. Fetches nothing.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Final, Generic, Protocol, TypeVar

from layerfs.errors import ImageError, NotInStore, StoreDamaged
from layerfs.host.oserrors import disk_errors
from layerfs.oci import Digest
from layerfs.oci.documents import MAX_DOCUMENT_SIZE
from layerfs.store.disk import file_size, read_small, write_durably
from layerfs.store.layout import staged
from layerfs.store.locks import Locks


class Document(Protocol):
    """A value that was parsed from *raw*."""

    @property
    def raw(self) -> bytes:
        """The bytes that were hashed."""


T = TypeVar("T", bound=Document)

LARGE: Final = 128 << 10
"""Bytes from which on hashing and parsing is no matter for a loop: it takes milliseconds, for 4 MiB 90."""

_CACHED: Final = 1024
"""Parsed documents kept in memory; about 10 KiB each."""
_CACHED_BYTES: Final = 16 << 20
"""Bytes that they have at most: an index, a manifest and a config of the largest kind fit."""

log = logging.getLogger(__name__)


class DocumentShelf(Generic[T]):
    """All documents of one kind, ``<directory>/<digest name>.json``. Thread-safe."""

    def __init__(self, directory: Path, kind: str, parse: Callable[[bytes, Digest], T], locks: Locks) -> None:
        self._directory = directory
        self._kind = kind
        self._parse = parse
        self._locks = locks
        self._known: dict[Digest, T] = {}
        self._known_bytes = 0
        self._wrong: dict[Digest, ImageError] = {}
        """What is the matter with right bytes that are no such document."""
        self._keeping = Lock()

    def path(self, digest: Digest) -> Path:
        """Path of the document of *digest*."""
        return self._directory / f"{digest.name}.json"

    def has(self, digest: Digest) -> bool:
        """Say whether the document is on the disk; `load`, which reads it, may know one that is not."""
        return file_size(self.path(digest)) is not None

    def is_unread(self, digest: Digest) -> bool:
        """Say whether the document is there, and so large that `load` of it belongs into a thread."""
        if digest in self._known or digest in self._wrong:
            return False
        return (file_size(self.path(digest)) or 0) >= LARGE

    def save(self, raw: bytes, digest: Digest) -> Path:
        """Keep *raw* exactly; saving it again changes nothing, a damaged file is replaced.

        Raises DigestMismatch if *raw* is not what *digest* names, StoreFull, StoreReadOnly, StoreError.
        """
        digest.check(raw, f"{self._kind} {digest}")
        final = self.path(digest)
        if self._holds(raw, final):
            return final
        temporary = staged(self._directory, digest.name, "writing")
        with self._locks.holding(temporary), disk_errors(f"{final}: cannot write"):
            write_durably(temporary, final, raw)
        return final

    def load(self, digest: Digest) -> T:
        """Return the parsed document.

        Raises NotInStore; StoreDamaged if the file does not hash to its name; InvalidDocument, naming the
        field, or UnsupportedImage for right bytes that are no such document.
        """
        known = self._known.get(digest)
        if known is not None:
            return known
        if (wrong := self._wrong.get(digest)) is not None:
            raise type(wrong)(*wrong.args)
        raw = self.read(digest)
        try:
            document = self._parse(raw, digest)
        except ImageError as exc:
            if len(self._wrong) >= _CACHED:
                self._wrong.clear()
            self._wrong[digest] = type(exc)(*exc.args)  # a new one, which holds no bytes by its traceback
            raise
        self._keep(digest, document)
        return document

    def read(self, digest: Digest) -> bytes:
        """Return the bytes of the document, whatever they are. Raises NotInStore, StoreDamaged."""
        path = f"{self._directory}/{digest.name}.json"  # hundreds are read in a row; a Path costs as much
        raw = read_small(path, MAX_DOCUMENT_SIZE)
        if raw is None:
            raise NotInStore(
                f"{self._kind} {digest}: not in the store (expected at {path}); "
                f"`layerfs pull` of an image that has it fetches it"
            )
        found = Digest.of(raw, digest.algorithm)
        if found != digest:
            raise StoreDamaged(
                f"{path}: hashes to {found} (expected what its name says); "
                "`layerfs pull` of an image that has it replaces it"
            )
        return raw

    def forget(self, digest: Digest) -> None:
        """Drop the cached value of *digest*."""
        self._wrong.pop(digest, None)
        with self._keeping:
            self._drop(digest)

    def _keep(self, digest: Digest, document: T) -> None:
        """Keep what was parsed, in the place of what was parsed first."""
        with self._keeping:
            self._drop(digest)
            self._known[digest] = document
            self._known_bytes += len(document.raw)
            while len(self._known) > _CACHED or self._known_bytes > _CACHED_BYTES:
                self._drop(next(iter(self._known)))

    def _drop(self, digest: Digest) -> None:
        if (known := self._known.pop(digest, None)) is not None:
            self._known_bytes -= len(known.raw)

    def _holds(self, raw: bytes, path: Path) -> bool:
        try:
            return read_small(path, MAX_DOCUMENT_SIZE) == raw
        except StoreDamaged as exc:
            log.warning("%s; it is replaced", exc)
            return False
