"""Blobs that are there: verified once, found under their final name ever after.

Decides what counts as a published blob. `VerifiedBlob` is the proof that others ask for. Never
imports `download` or `storage`.
"""

from pathlib import Path
from typing import Final

import msgspec

from layerfs.oci import Digest
from layerfs.store.disk import file_size, unlink
from layerfs.store.layout import BLOB_SUFFIX, StoreLayout

_PROOF: Final = object()


class VerifiedBlob(msgspec.Struct, frozen=True):
    """A file whose bytes hashed to its digest. Only this package can make one."""

    digest: Digest
    path: Path
    size: int
    """In bytes."""
    proof: object

    def __post_init__(self) -> None:
        if self.proof is not _PROOF:
            raise TypeError("a VerifiedBlob is made by verification, not by hand")


def verified(digest: Digest, path: Path, size: int) -> VerifiedBlob:
    """Make a VerifiedBlob. For this package: the caller has verified, or found it under its final name."""
    return VerifiedBlob(digest, path, size, _PROOF)


class BlobShelf:
    """All compressed blobs of a store."""

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout
        self._prefix = f"{layout.layers}/"

    def find(self, digest: Digest) -> VerifiedBlob | None:
        """Return the published blob, None if it is not there. Costs one lstat."""
        path = f"{self._prefix}{digest.algorithm}-{digest.hex}{BLOB_SUFFIX}"
        size = file_size(path)
        return None if size is None else verified(digest, Path(path), size)

    def discard(self, digest: Digest) -> bool:
        """Remove a blob; True if there was one. Raises StoreReadOnly, StoreError."""
        return unlink(self._layout.blob(digest))
