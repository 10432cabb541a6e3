"""The uncompressed archive of a blob, for who wants it as it is."""

from collections.abc import Iterator
from contextlib import contextmanager

from layerfs.extract.inflating import inflated
from layerfs.host.oserrors import disk_errors
from layerfs.store.blobs import VerifiedBlob


@contextmanager
def archive_of(blob: VerifiedBlob) -> Iterator[Iterator[bytes]]:
    """Yield the archive in chunks, not verified. Raises StoreError; reading InvalidArchive, WorkerDied."""
    with disk_errors(str(blob.path)), inflated(blob.path, f"layer {blob.digest}") as chunks:
        yield chunks
