"""TOCs as they are in their blobs: ``tocs/<digest>/``, with ``toc``, ``place``, maybe ``split``.

The bytes were read by a worker before they have a name; it compared the digest and judged what they say. The
skeleton that was made of them can be made anew from here, without a registry.

Beside them is said which blobs were compared with the TOC once they were whole: ``equals-<short id>``, an
empty file, or ``differs-<short id>``, which says how.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import msgspec

from layerfs.errors import InvalidDigest, StoreDamaged
from layerfs.host.oserrors import disk_errors
from layerfs.oci import Digest
from layerfs.oci.toc import TOC_MAX, TocPlace
from layerfs.store.disk import file_size, read_small, sync_directory, write_durably
from layerfs.store.layout import staged
from layerfs.store.locks import ByteLock, Locks
from layerfs.store.removal import remove_tree

_TOC: Final = "toc"
_SPLIT: Final = "split"
_PLACE: Final = "place"
_DIFFERS: Final = "differs-"
_EQUALS: Final = "equals-"
_TEXT_MAX: Final = 64 << 10


class BlobPlace(msgspec.Struct, frozen=True):
    """Where a TOC was read from."""

    toc: TocPlace
    blob: str
    """Digest of the blob."""
    blob_size: int


class StoredToc(msgspec.Struct, frozen=True):
    """The bytes of one TOC."""

    digest: Digest
    directory: Path

    @property
    def toc(self) -> Path:
        """The file of the TOC."""
        return self.directory / _TOC

    @property
    def split(self) -> Path | None:
        """The file of its tar-split, None if there is none."""
        path = self.directory / _SPLIT
        return None if file_size(path) is None else path

    def place(self) -> "BlobPlace | None":
        """Return where in which blob the TOC was; None if that is not known. Raises StoreDamaged."""
        raw = read_small(self.directory / _PLACE, _TEXT_MAX)
        try:
            return None if raw is None else msgspec.json.decode(raw, type=BlobPlace)
        except msgspec.DecodeError as exc:
            raise StoreDamaged(f"{self.directory / _PLACE}: {exc} (expected the place of a TOC)") from exc

    @property
    def files(self) -> tuple[Path, Path | None]:
        """Both."""
        return self.toc, self.split


class TocShelf:
    """All TOCs of a store. Thread-safe."""

    def __init__(self, directory: Path, locks: Locks) -> None:
        self.directory = directory
        self._locks = locks

    def find(self, digest: Digest) -> StoredToc | None:
        """Return the TOC *digest*, None if it is not there. Costs one lstat."""
        found = StoredToc(digest, self.directory / digest.name)
        return None if file_size(found.toc) is None else found

    def names(self) -> set[Digest]:
        """List the TOCs. Raises StoreError."""
        found = set()
        with disk_errors(f"{self.directory}: cannot be listed"), suppress(FileNotFoundError):
            for name in os.listdir(self.directory):
                with suppress(InvalidDigest):
                    found.add(Digest.from_name(name))
        return found

    def stage(self, digest: Digest) -> "StagedToc":
        """Make a private directory for the bytes of a TOC. Raises StoreFull, StoreReadOnly, StoreError."""
        path = staged(self.directory, digest.name, "extracting")
        lock = self._locks.take(path)
        try:
            with disk_errors(f"{path}: cannot create"):
                os.mkdir(path, 0o700)
        except BaseException:
            lock.release()
            raise
        return StagedToc(StoredToc(digest, path), lock)

    def publish(self, toc: "StagedToc") -> StoredToc:
        """Give *toc*, which a worker has verified, its name; losing a race is success.

        Raises StoreFull, StoreReadOnly, StoreError.
        """
        digest = toc.stored.digest
        final = StoredToc(digest, self.directory / digest.name)
        with self._locks.publication(digest):
            if self.find(digest) is None:
                with disk_errors(f"{final.directory}: cannot publish"):
                    sync_directory(toc.stored.directory)
                    os.rename(toc.stored.directory, final.directory)
                    sync_directory(self.directory)
        return final

    def difference(self, digest: Digest, blob: Digest) -> str:
        """Return how the archive in *blob* was found to differ from the TOC *digest*; empty if it was not.

        Costs one open. Raises StoreDamaged.
        """
        raw = read_small(self._differs(digest, blob), _TEXT_MAX)
        return "" if raw is None else raw.decode("utf-8", "replace")

    def note_difference(self, digest: Digest, blob: Digest, text: str) -> None:
        """Remember that the archive in *blob* is not what the TOC *digest* says: nobody may use the two.

        Raises NotInStore if the TOC is not here, StoreFull, StoreReadOnly, StoreError.
        """
        self._note(self._differs(digest, blob), text)

    def note_equal(self, digest: Digest, blob: Digest) -> None:
        """Remember that the archive in *blob* is what the TOC *digest* says. Raises as `note_difference`."""
        self._note(self._equals(digest, blob), "")

    def is_equal(self, digest: Digest, blob: Digest) -> bool:
        """Say whether the archive in *blob* was found to be what the TOC *digest* says."""
        return file_size(self._equals(digest, blob)) is not None

    def _note(self, final: Path, text: str) -> None:
        temporary = staged(self.directory, f"{final.parent.name}.{final.name}", "writing")
        with self._locks.holding(temporary), disk_errors(f"{final}: cannot write"):
            write_durably(temporary, final, text.encode("utf-8")[:_TEXT_MAX])

    def _differs(self, digest: Digest, blob: Digest) -> Path:
        return self.directory / digest.name / f"{_DIFFERS}{blob.short_id}"

    def _equals(self, digest: Digest, blob: Digest) -> Path:
        return self.directory / digest.name / f"{_EQUALS}{blob.short_id}"


class StagedToc:
    """The bytes of a TOC on their way in; removed unless published."""

    def __init__(self, stored: StoredToc, lock: ByteLock) -> None:
        self.stored = stored
        """Where they are, for the worker that reads them."""
        self._lock = lock

    def write(self, toc: bytes, split: bytes = b"") -> None:
        """Write the bytes of the TOC, and of its tar-split if there is one. Raises StoreFull, StoreError."""
        for name, data in ((_TOC, toc), (_SPLIT, split)):
            assert len(data) <= TOC_MAX, "whoever fetched it has looked"
            if data:
                self._write(name, data)

    def note_place(self, place: BlobPlace) -> None:
        """Remember where the TOC was. Raises StoreFull, StoreError."""
        self._write(_PLACE, msgspec.json.encode(place))

    def _write(self, name: str, data: bytes) -> None:
        path = self.stored.directory / name
        with disk_errors(f"{path}: cannot write"):
            write_durably(path.with_name(f".{name}"), path, data)

    def close(self) -> None:
        """Remove what is still under the staged name; harmless after publication or a second time."""
        try:
            with disk_errors(f"{self.stored.directory}: cannot remove"):
                remove_tree(self.stored.directory)
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
