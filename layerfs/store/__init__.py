"""Bytes on disk: layout, staging, locks, records, refs, covers. Blocking and thread-safe.

Imports `oci`, `layer`, `extract` and `host`; never the registry. `ImageStorage` is the whole API.
"""

from layerfs.store.blobs import VerifiedBlob
from layerfs.store.download import StagedDownload
from layerfs.store.locks import DigestLock
from layerfs.store.probe import Capabilities
from layerfs.store.refs import RefEntry, Refs
from layerfs.store.staging import StagedTree
from layerfs.store.storage import ImageStorage, LayerDir
from layerfs.store.writer import HashingWriter

__all__ = [
    "Capabilities",
    "DigestLock",
    "HashingWriter",
    "ImageStorage",
    "LayerDir",
    "RefEntry",
    "Refs",
    "StagedDownload",
    "StagedTree",
    "VerifiedBlob",
]
