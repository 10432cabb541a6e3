"""What a store holds and what it is there for: what each thing takes of the disk, and which refs need it.

Reads names, sizes, records and documents; changes nothing but what is known of sizes
(`layerfs.store.measure`).
"""

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from layerfs.catalog.documents import held_document
from layerfs.errors import InvalidDigest
from layerfs.oci import Digest, ImageReference, Index, Manifest, documents_below, stack_digest
from layerfs.oci.toc import usable_place
from layerfs.store.layout import (
    BLOB_SUFFIX,
    COVERS,
    EXTRACTED,
    OBJECTS,
    OVERLAYS,
    RECORD_SUFFIX,
    SKELETONS,
    TOCS,
    StagedName,
)
from layerfs.store.measure import BLOCK, disk_usage
from layerfs.store.records import MERGERS
from layerfs.store.stock import Stored, StoredKind
from layerfs.store.storage import ImageStorage


class Held(msgspec.Struct, frozen=True):
    """What one thing takes, and when it was last used."""

    size: int
    """Bytes of the disk, as du(1) counts them."""
    used_at: float
    """Seconds since the epoch; exact to the hour for layers and covers."""


class Inventory(msgspec.Struct):
    """The contents of one store."""

    things: dict[Stored, Held] = msgspec.field(default_factory=dict)
    """What has its final name."""
    objects: dict[str, Held] = msgspec.field(default_factory=dict)
    """Files of lazy layers, by their ids."""
    leftovers: dict[Path, Held] = msgspec.field(default_factory=dict)
    """Suspended downloads, and what killed processes left; also what is on its way just now."""
    scratches: dict[Path, Held] = msgspec.field(default_factory=dict)
    """What was written to overlays."""
    bundles: dict[Path, Held] = msgspec.field(default_factory=dict)
    """Stores of local sources that were mounted in place."""
    other: int = 0
    """Bytes of refs, leases, the store's own files and its directories themselves."""
    images: dict[ImageReference, frozenset[Digest]] = msgspec.field(default_factory=dict)
    """For each ref the digests of all that it needs, covers included, as far as the store knows."""
    users: Counter[Digest] = msgspec.field(default_factory=Counter)
    """How many refs need a digest."""

    def of(self, *kinds: StoredKind) -> dict[Digest, int]:
        """Return the sizes of all things of some kinds."""
        return {what.digest: held.size for what, held in self.things.items() if what.kind in kinds}

    @property
    def total(self) -> int:
        """All of it."""
        stocks = (self.things, self.objects, self.leftovers, self.scratches, self.bundles)
        return self.other + sum(held.size for stock in stocks for held in stock.values())


def take_inventory(storage: ImageStorage) -> Inventory:
    """Look at everything in *storage*; what vanishes meanwhile is left out. Raises StoreError."""
    found, root, stock = Inventory(), storage.images_dir, storage.stock
    for path, status, what in stored_in(storage):
        if what is None:
            found.leftovers[path] = _held(path, status)
        elif what.kind in stock.shelves or what.kind == "toc":
            found.things[what] = Held(stock.measure(what), stock.used_at(what))
        else:
            found.things[what] = Held(status.st_blocks * BLOCK, status.st_mtime)
    for id_, status in storage.lazy.objects.all():
        found.objects[id_] = Held(status.st_blocks * BLOCK, status.st_mtime // 1)
    for directory, into in ((root / OVERLAYS, found.scratches), (root / "local", found.bundles)):
        for name, status in _entries(directory):
            if stat.S_ISDIR(status.st_mode):
                into[directory / name] = _held(directory / name, status)
    found.other = _other(root)
    for reference, entry in storage.refs.all():
        found.images[reference] = needed = needs_of(storage, entry.digest)
        found.users.update(needed)
    return found


def needs_of(storage: ImageStorage, digest: Digest, lacking: set[Digest] | None = None) -> frozenset[Digest]:
    """Return *digest* and all that its documents, as far as *storage* has them, lead to; covers and TOCs too.

    What documents it may lead to that are not here is added to *lacking*.
    """

    def load(each: Digest) -> Manifest | Index | None:
        document = held_document(storage, each)
        if document is None and lacking is not None:
            lacking.add(each)
        return document

    def walk() -> Iterator[Digest]:
        yield digest
        for document in documents_below(digest, load):
            yield document.digest
            if isinstance(document, Manifest):
                yield document.config.digest
                layers = [layer.digest for layer in document.layers]
                yield from layers
                yield from (place.digest for layer in document.layers if (place := usable_place(layer)))
                yield from (stack_digest(layers, merger) for merger in MERGERS)

    return frozenset(walk())


def stored_in(storage: ImageStorage) -> Iterator[tuple[Path, os.stat_result, Stored | None]]:
    """Yield what lies among the things of a store, and which of them it is; None for what is staged.

    Nothing is measured. Foreign names are left out.
    """
    root = storage.images_dir
    stocks: tuple[tuple[StoredKind, Path, str], ...] = (
        ("blob", storage.layer_dir, BLOB_SUFFIX),
        ("manifest", root / "manifests", RECORD_SUFFIX),
        ("config", root / "configs", RECORD_SUFFIX),
        ("layer", root / EXTRACTED, ""),
        ("cover", root / COVERS, ""),
        ("skeleton", root / SKELETONS, ""),
        ("toc", root / TOCS, ""),
    )
    for name, status in _entries(storage.lazy.objects.directory):
        if StagedName.parse(name) is not None:
            yield storage.lazy.objects.directory / name, status, None
    for kind, directory, suffix in stocks:
        for name, status in _entries(directory):
            if StagedName.parse(name) is not None:
                yield directory / name, status, None
            elif suffix or not name.endswith(RECORD_SUFFIX):
                try:
                    what = Stored(kind, Digest.from_name(name.removesuffix(suffix)))
                except InvalidDigest:
                    continue
                yield directory / name, status, what


def _held(path: Path, status: os.stat_result) -> Held:
    return Held(disk_usage(path), status.st_mtime)


def _other(root: Path) -> int:
    """Return the bytes of what is in no row: small files, and the directories that the rest is in."""
    rows = {
        "layers", "manifests", "configs", EXTRACTED, COVERS, TOCS, SKELETONS, OBJECTS, OVERLAYS, "local"
    }  # fmt: skip
    total = os.lstat(root).st_blocks * BLOCK
    total += sum(status.st_blocks * BLOCK for _, status in _entries(root / OBJECTS) if _is_directory(status))
    for name, status in _entries(root):
        total += status.st_blocks * BLOCK if name in rows else disk_usage(root / name)
    return total


def _is_directory(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode)


def _entries(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                yield entry.name, entry.stat(follow_symlinks=False)
