"""Bytes on disk: what an image store holds, and in which order it comes and goes. `ImageStorage` is the API.

Blocking and thread-safe; several processes may use one store at once. Never imports the registry.

Four rules make that a process may be killed, or the power be cut, at any moment:

- **A name is a promise.** Whatever has its final name is complete and was verified. Until then it has a
  staged name in the same directory, ``<final>.<32 hex>.<kind>``, which no reader looks at (`layout`).
- **Publication is one rename**, or one link, on the same filesystem. For a tree: an invalid tree out of the
  way, the record, the tree. So each tree has a record, and a record without a tree means nothing. Losing the
  race to another process is success: equal digests mean equal bytes.
- **Removal goes the other way**: the tree is renamed aside, then its record goes, and only then are the files
  deleted. Nothing is deleted under its final name but single files, which go at once.
- **Who works holds a lock.** Each digest and each staged name has a byte of the file ``lock``, which the
  kernel frees when the holder dies (`locks`). A staged name whose byte is free is a leftover: `sweep` removes
  it, or a later download goes on with it.

After a loss of power a blob, a document, a record or a ref is there whole or not at all: its bytes are synced
before it is renamed. A tree is published without waiting for the disk and may be lost; its record says so
(`durability`, `records`).
"""

from layerfs.store.blobs import VerifiedBlob
from layerfs.store.download import StagedDownload
from layerfs.store.locks import WORK_SECONDS, DigestLock
from layerfs.store.owner import Capabilities
from layerfs.store.records import LayerDir
from layerfs.store.refs import RefEntry, Refs
from layerfs.store.staging import StagedTree
from layerfs.store.storage import ImageStorage
from layerfs.store.writer import HashingWriter

__all__ = [
    "WORK_SECONDS",
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
