"""Lazy layers in a store: TOCs, the skeletons that are made of them, and the objects that hold their files.

A skeleton is a layer directory with its record as `trees` has them, keyed by the digest of its TOC. The files
in it are without content (`layerfs.extract.stubs`): what one holds is an object, here or not.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from layerfs import host
from layerfs.errors import DigestMismatch, NotInStore, StoreDamaged, StoreError, StoreReadOnly
from layerfs.extract.job import SkeletonJob
from layerfs.layer.contents import Read, find_row, parse_row, rows_of
from layerfs.layer.record import Extraction, LayerRecord
from layerfs.layer.toc import Content
from layerfs.oci import Digest
from layerfs.store.disk import opened_file
from layerfs.store.durability import Durability
from layerfs.store.extraction import Extractors, skeleton_job_for
from layerfs.store.here import Here, LastCounts
from layerfs.store.layout import StoreLayout
from layerfs.store.locks import Locks
from layerfs.store.objectindex import ID_LENGTH, ObjectIndexes
from layerfs.store.objects import ObjectShelf
from layerfs.store.probe import stub_problem
from layerfs.store.records import LayerDir, read_head
from layerfs.store.soundness import TreeJudge
from layerfs.store.staging import StagedTree
from layerfs.store.tocs import BlobPlace, StagedToc, StoredToc, TocShelf
from layerfs.store.trees import InUse, TreeShelf

RunSkeleton = Callable[[SkeletonJob, Callable[[bytes], object]], Extraction]
"""Has a worker make a skeleton; the function takes the tables of the record."""

log = logging.getLogger(__name__)


class LazyLayers:
    """Those of one store. Thread-safe; blocking."""

    def __init__(
        self,
        layout: StoreLayout,
        judged: tuple[Locks, Durability, InUse, TreeJudge],
        extractors: Extractors,
        *,
        readonly: bool,
    ) -> None:
        locks, durability, *_ = judged
        self._layout = layout
        self._locks = locks
        self._extractors = extractors
        self._readonly = readonly
        self._problem: str | None = None
        self._boot_id = host.boot_id()
        self.tocs = TocShelf(layout.tocs, locks)
        self.skeletons: TreeShelf[LayerRecord] = TreeShelf(layout.skeletons, LayerRecord, *judged)
        self.objects = ObjectShelf(layout.objects, locks, durability)
        self._counts = LastCounts(self.count)
        self.indexes = ObjectIndexes(self._table, self._identity)

    def problem(self) -> str:
        """Say why no layer of this store can be lazy; empty if they can. Tries the disk when asked first."""
        if self._problem is None:
            try:
                self._problem = self._try()
            except StoreError as exc:  # a full disk, for instance: it may be another the next time
                return str(exc)
            if self._problem:
                log.info("%s: no lazy layers: %s", self._layout.root, self._problem)
        return self._problem

    def open_skeleton(self, toc: Digest) -> LayerDir | None:
        """Return the complete skeleton of *toc*, None if it is not there. Costs one lstat when known."""
        tree = self.skeletons.find(toc)
        return None if tree is None else LayerDir(toc, tree.path, tree.record)

    def open_skeleton_of(self, toc: Digest, blob: Digest) -> LayerDir | None:
        """Return the skeleton of *toc* if it was made for the layer *blob*; None if not.

        What it says follows from where in its blob the TOC was, too, and any image may claim any TOC.
        """
        found = self.open_skeleton(toc)
        stored = None if found is None else self.tocs.find(toc)
        place = None if stored is None else stored.place()
        return None if place is None or place.blob != str(blob) else found

    def listed(self) -> Iterator[tuple[Digest, Digest]]:
        """Yield TOC and blob of each skeleton, in no order. Raises OSError, StoreError."""
        for toc in self.skeletons.names()[0]:
            stored = self.tocs.find(toc)
            place = None if stored is None else stored.place()
            if place is not None:
                yield toc, Digest.parse(place.blob)

    def stage_toc(self, toc: Digest) -> StagedToc:
        """Make a private place for the bytes of a TOC. Raises StoreFull, StoreReadOnly, StoreError."""
        self._require_writable(f"TOC {toc}")
        return self.tocs.stage(toc)

    def stage_skeleton(self, toc: Digest) -> StagedTree:
        """Make the private directory of a skeleton. Raises StoreFull, StoreReadOnly, StoreError."""
        self._require_writable(f"skeleton of {toc}")
        return self.skeletons.stage(toc)

    def publish_skeleton(
        self, tree: StagedTree, extraction: Extraction, toc: StagedToc | None = None
    ) -> LayerDir:
        """Give a skeleton its name, and first *toc*, the bytes that a worker made it of, unless they have it.

        Losing a race is success. Raises DigestMismatch if they are not of one TOC, NotInStore if there are no
        bytes, StoreFull, StoreReadOnly, StoreError.
        """
        found = Digest.parse(extraction.digest)
        if found != tree.digest or (toc is not None and toc.stored.digest != found):
            raise DigestMismatch(f"the skeleton for {tree.digest} was made of {found} (expected the same)")
        if toc is not None:
            self.tocs.publish(toc)
        elif self.tocs.find(found) is None:
            raise NotInStore(f"TOC {found}: not in the store (expected it before its skeleton)")
        record = LayerRecord(
            state="pending",
            boot_id=self._boot_id,
            identity=tree.identity,
            native=self._extractors.capabilities().whiteout_devices,
            layer=extraction,
        )
        published = self.skeletons.publish(tree, record)
        return LayerDir(found, published.path, published.record)

    def make_skeleton(
        self, toc: StagedToc | StoredToc, place: BlobPlace, run: RunSkeleton | None = None
    ) -> LayerDir:
        """Make and publish the skeleton of a TOC: by *run*, or with a worker of this store's own.

        The caller works on the digest alone (`ImageStorage.lock`). Raises InvalidToc, BudgetExceeded,
        DigestMismatch, NotInStore, StoreFull, StoreReadOnly, StoreError, WorkerDied.
        """
        if isinstance(toc, StagedToc):
            toc.note_place(place)
        stored = toc.stored if isinstance(toc, StagedToc) else toc
        with self.second_skeleton(stored, place, run) as (tree, extraction):
            return self.publish_skeleton(tree, extraction, toc if isinstance(toc, StagedToc) else None)

    @contextmanager
    def second_skeleton(
        self, toc: StoredToc, place: BlobPlace, run: RunSkeleton | None = None
    ) -> Iterator[tuple[StagedTree, Extraction]]:
        """Make a skeleton beside the one that may be there; removed unless it is published.

        Raises as `make_skeleton` does.
        """
        with self.stage_skeleton(toc.digest) as tree:
            workers = self._extractors
            job = skeleton_job_for(
                workers.capabilities(), workers.budgets, toc.files, place.toc, place.blob_size, tree.path
            )
            yield tree, (run or workers.make_skeleton)(job, tree.tables.write)

    def content(self, toc: Digest, id_: str) -> Content:
        """Return where in its blob an object of a skeleton is. Raises NotInStore, StoreDamaged."""
        with self._table(toc) as (read, size):
            row = find_row(read, size, id_)
            if row is None:
                raise NotInStore(f"object {id_}: no file of the TOC {toc} has this content")
            return self._parsed(toc, row)[1]

    def contents(self, toc: Digest) -> Iterator[tuple[str, Content]]:
        """Yield what the files of a skeleton hold, each content once, by object. As `content` raises."""
        with self._table(toc) as (read, size):
            for row in rows_of(read, size):
                yield self._parsed(toc, row)

    def count(self, toc: Digest) -> Here:
        """Say how many files of a skeleton are here, asking the disk once for each.

        Raises as `content` does.
        """
        files = size = here = here_size = 0
        for id_, content in self.contents(toc):
            files += 1
            size += content.size
            if self.objects.has(id_):
                here += 1
                here_size += content.size
        return Here(here, here_size, files, size)

    def last_count(self, toc: Digest) -> Here | None:
        """Return about what `count` says, as it was a moment ago; None if nobody has counted yet."""
        return self._counts.get(toc)

    def object_ids(self, toc: Digest) -> Iterator[str]:
        """Yield the objects that the files of a skeleton are, by its record: it may have lost its tree.

        Raises NotInStore if there is no record, StoreDamaged.
        """
        with self._table(toc) as (read, size):
            for row in rows_of(read, size):
                yield row[:ID_LENGTH].decode("ascii")

    def _identity(self, toc: Digest) -> object:
        tree = self.skeletons.find(toc)
        return None if tree is None else tree.record.identity

    @contextmanager
    def _table(self, toc: Digest) -> Iterator[tuple[Read, int]]:
        """Open the table of contents of a skeleton."""
        path = self.skeletons.record_path(toc)
        with opened_file(path) as file:
            if file is None:
                raise NotInStore(f"skeleton of {toc}: not in the store (expected its record at {path})")
            head = read_head(file)
            try:
                layer = msgspec.json.decode(head, type=LayerRecord).layer
            except msgspec.DecodeError as exc:
                raise StoreDamaged(f"{path}: {exc} (expected the record of a skeleton)") from exc
            start, size = len(head) + 1 + sum(layer.tables), layer.contents

            def read(offset: int, length: int) -> bytes:
                file.seek(start + offset)
                return file.read(min(length, size - offset))

            yield read, size

    def _parsed(self, toc: Digest, row: bytes) -> tuple[str, Content]:
        try:
            return parse_row(row)
        except ValueError as exc:
            raise StoreDamaged(f"{self.skeletons.record_path(toc)}: {exc} (expected a row)") from exc

    def _try(self) -> str:
        if self._readonly:
            return "the store may only be read"
        capabilities = self._extractors.capabilities()
        if not capabilities.whiteout_devices or not capabilities.marker_names:
            return "the filesystem of the store holds no whiteouts, no markers or no attributes of overlayfs"
        return stub_problem(self._layout.skeletons, self._locks, capabilities.owner)

    def _require_writable(self, what: str) -> None:
        if self._readonly:
            raise StoreReadOnly(f"{what}: not possible, {self._layout.root} may only be read")
