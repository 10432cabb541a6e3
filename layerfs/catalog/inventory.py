"""What a store holds and what it is there for: sizes of blobs and trees, and which refs need them.

Reads names, sizes, records and documents; changes nothing.
"""

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from layerfs.errors import InvalidDigest, LayerfsError
from layerfs.oci import Digest, ImageReference, Index, Manifest, documents_below
from layerfs.store.disk import disk_usage
from layerfs.store.layout import BLOB_SUFFIX, COVERS, EXTRACTED, RECORD_SUFFIX, StagedName
from layerfs.store.scratch import Scratch, all_scratches
from layerfs.store.storage import ImageStorage


@dataclass(slots=True)
class Inventory:
    """The contents of one store; sizes in bytes."""

    blobs: dict[Digest, int] = field(default_factory=dict)
    trees: dict[Digest, int] = field(default_factory=dict)
    """What the files of each extracted layer contain."""
    covers: dict[Digest, int] = field(default_factory=dict)
    """What each cover takes of the disk."""
    scratches: dict[Scratch, int] = field(default_factory=dict)
    """What the scratch of each writable overlay takes of the disk, mounted or not."""
    documents: dict[Digest, int] = field(default_factory=dict)
    """Manifests, indexes and configs."""
    leftovers: dict[Path, int] = field(default_factory=dict)
    """Suspended downloads, and what killed processes left."""
    bundles: dict[Path, int] = field(default_factory=dict)
    """Stores of local sources that were mounted in place, and what they hold."""
    images: dict[ImageReference, frozenset[Digest]] = field(default_factory=dict)
    """For each ref the digests of all that it needs, as far as the store knows."""
    users: Counter[Digest] = field(default_factory=Counter)
    """How many refs need a digest."""

    @property
    def total(self) -> int:
        """All of it."""
        stocks = (self.blobs, self.trees, self.covers, self.documents)
        rest = (*self.scratches.values(), *self.leftovers.values())
        return sum(sum(sizes.values()) for sizes in stocks) + sum(rest)


def take_inventory(storage: ImageStorage, *, depth: int = 0) -> Inventory:
    """Look at everything in *storage*; what vanishes meanwhile is left out. Raises StoreError."""
    found = Inventory()
    for directory, suffix, sizes in (
        (storage.layer_dir, BLOB_SUFFIX, found.blobs),
        (storage.images_dir / "manifests", RECORD_SUFFIX, found.documents),
        (storage.images_dir / "configs", RECORD_SUFFIX, found.documents),
        (storage.images_dir / EXTRACTED, "", found.trees),
        (storage.images_dir / COVERS, "", found.covers),
    ):
        for name, status in _entries(directory):
            if StagedName.parse(name) is not None:
                found.leftovers[directory / name] = _size(directory / name, status)
                continue
            with contextlib.suppress(InvalidDigest):
                digest = Digest.from_name(name.removesuffix(suffix) if suffix else name)
                sizes[digest] = status.st_size
    for digest in list(found.trees):
        layer = storage.open_layer(digest)
        found.trees[digest] = layer.record.layer.file_bytes if layer else 0
    for digest in found.covers:
        found.covers[digest] = disk_usage(storage.images_dir / COVERS / digest.name)
    for scratch in all_scratches(storage.images_dir):
        found.scratches[scratch] = disk_usage(scratch.path)
    for name, status in _entries(storage.images_dir / "local"):
        if stat.S_ISDIR(status.st_mode) and depth == 0:
            path = storage.images_dir / "local" / name
            inside = take_inventory(ImageStorage(path, maker=storage.maker), depth=1)
            found.bundles[path] = inside.total
    for reference, entry in storage.refs.all():
        found.images[reference] = needed = frozenset(_needed(storage, entry.digest))
        found.users.update(needed)
    return found


def _needed(storage: ImageStorage, digest: Digest) -> Iterator[Digest]:
    def load(each: Digest) -> Manifest | Index | None:
        try:
            return storage.load_manifest(each)
        except LayerfsError:  # only its name is known so far
            return None

    yield digest
    for document in documents_below(digest, load):
        yield document.digest
        if isinstance(document, Manifest):
            yield document.config.digest
            yield from (layer.digest for layer in document.layers)


def _size(path: Path, status: os.stat_result) -> int:
    """Return the bytes in the files of a leftover; of one that vanishes meanwhile, those seen before."""
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size if stat.S_ISREG(status.st_mode) else 0
    sizes: dict[int, int] = {}
    for _, _, names, fd in os.fwalk(path):
        for name in names:
            with contextlib.suppress(OSError):
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    sizes[found.st_ino] = found.st_size
    return sum(sizes.values())


def _entries(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                yield entry.name, entry.stat(follow_symlinks=False)
