"""`ImageStorage`: the store of one images directory, for a daemon, a command line or a sandbox runtime.

A facade: finds the module that does the work, holds what they share. Blocking and thread-safe; callers own
the threads, and several processes may use one store at once. Must never import the registry.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import msgspec

from layerfs import host
from layerfs.errors import (
    DigestMismatch,
    InvalidLayer,
    NotInStore,
    StoreDamaged,
    StoreReadOnly,
    VerificationError,
)
from layerfs.host.oserrors import disk_errors
from layerfs.layer.budgets import Budgets
from layerfs.layer.record import Extraction, LayerRecord
from layerfs.oci import Digest, ImageConfig, Index, Manifest, parse_manifest, stack_digest
from layerfs.store.blobs import BlobShelf, VerifiedBlob, verified
from layerfs.store.disk import utf8_path
from layerfs.store.documents import DocumentShelf
from layerfs.store.download import StagedDownload
from layerfs.store.durability import Durability, writing_back
from layerfs.store.extraction import Extractors
from layerfs.store.gate import StoreGate
from layerfs.store.layout import StagedName, StoreLayout, as_digest
from layerfs.store.lazy import LazyLayers
from layerfs.store.leases import HeldLease, Leases
from layerfs.store.locks import DigestLock, Locks
from layerfs.store.opening import Opening
from layerfs.store.owner import Capabilities
from layerfs.store.parts import PartShelf
from layerfs.store.paths import StorePaths
from layerfs.store.records import CoverRecord, LayerDir, Merger
from layerfs.store.refs import Refs
from layerfs.store.removing import Remover
from layerfs.store.scratch import usage_of
from layerfs.store.soundness import TreeJudge
from layerfs.store.staging import StagedTree
from layerfs.store.stock import Stock
from layerfs.store.suspended import discard_suspended, find_suspended, stage_download
from layerfs.store.sweep import SUSPENDED_SECONDS, Swept, sweep
from layerfs.store.trees import TreeShelf
from layerfs.store.usage import Usage, UsageCache

log = logging.getLogger(__name__)


class ImageStorage(StorePaths):
    """The store below *images_dir*, which is made if it does not exist.

    A digest argument is a `Digest` or its text; text is parsed before a path is made of it (InvalidDigest).
    Opening reads nothing that grows with the store, and writes nothing unless something of the store is
    missing or open to others. A directory that others could change is refused, whatever it says of itself;
    a store of *maker*, a uid, is believed beside one of this user or of root. *shared* says whether other
    users may read the store from now on; None leaves it as it was said last, and at first they may not.
    Raises StoreMismatch, StoreFull, StoreReadOnly, StoreDamaged, StoreError.
    """

    def __init__(
        self,
        images_dir: str | os.PathLike[str],
        *,
        budgets: Budgets | None = None,
        shared: bool | None = None,
        maker: int | None = None,
    ) -> None:
        super().__init__(StoreLayout(utf8_path(images_dir)))
        self.locks = Locks(self._layout.lock)
        """Who works on what."""
        self._boot_id = host.boot_id()
        self.maker = maker
        """Whose store is believed beside one's own and root's; None for nobody's."""
        self._opening = opening = Opening(self._layout, self.locks, StoreGate(self._layout, maker))
        self.readonly = not opening.enter(shared)
        """Whether this process may only read the store; what is missing then raises StoreReadOnly."""
        self._durability = Durability(self.images_dir, readonly=self.readonly)
        self._mounts = UsageCache(lambda: usage_of(self.images_dir))
        self._extractors = Extractors(opening.capabilities, budgets or Budgets())
        self.refs = Refs(self._layout, self.locks)
        """Pinned tags."""
        self.leases = Leases(self._layout, self.locks)
        """What programs need, beside the refs."""
        self._manifests: DocumentShelf[Manifest | Index] = DocumentShelf(
            self._layout.manifests, "manifest", parse_manifest, self.locks
        )
        self._configs: DocumentShelf[ImageConfig] = DocumentShelf(
            self._layout.configs, "config", lambda raw, d: ImageConfig.parse(raw, f"config {d}"), self.locks
        )
        self._blobs = BlobShelf(self._layout)
        judged = (self.locks, self._durability, self._mounts.uses, TreeJudge(opening.known_form))
        self._layers: TreeShelf[LayerRecord] = TreeShelf(self._layout.extracted, LayerRecord, *judged)
        self._covers: TreeShelf[CoverRecord] = TreeShelf(self._layout.covers, CoverRecord, *judged)
        self.lazy = LazyLayers(self._layout, judged, self._extractors, readonly=self.readonly)
        """TOCs, skeletons and objects."""
        self.stock = Stock(self._layout, self._layers, self._covers, self.lazy.skeletons)
        """All that has its final name."""
        self.remover = Remover(self.stock, self.locks)
        """Removes what is complete; who may go is decided by `layerfs.gc`."""

    @property
    def capabilities(self) -> Capabilities:
        """Who owns the store, and the form of its trees. Tries the disk when it is asked first."""
        return self._opening.capabilities()

    @property
    def parts(self) -> PartShelf:
        """Parts of blobs that came before the rest."""
        return PartShelf(self._layout.layers, self.locks)

    def __repr__(self) -> str:
        return f"ImageStorage({os.fspath(self.images_dir)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the extractors that `extract_layer` started, let go of the disk; the store may be used again.

        Call `make_durable` before: what the disk loses while nobody watches, nobody is told of.
        """
        self._extractors.close()
        self._durability.close()

    # Manifests and configs (image-spec manifest.md, image-index.md, config.md)

    def save_manifest(self, raw: bytes, digest: Digest | str) -> Path:
        """Keep the exact bytes of a manifest or index. Raises DigestMismatch, StoreFull, StoreReadOnly."""
        return self._manifests.save(raw, as_digest(digest))

    def load_manifest(self, digest: Digest | str) -> Manifest | Index:
        """Return the parsed document. Raises NotInStore, StoreDamaged, InvalidDocument, UnsupportedImage."""
        return self._manifests.load(as_digest(digest))

    def has_manifest(self, digest: Digest | str) -> bool:
        """Say whether a manifest or index is in the store."""
        return self._manifests.has(as_digest(digest))

    def is_unread(self, digest: Digest | str) -> bool:
        """Say whether a manifest, index or config is here, and too large to be loaded in a loop."""
        wanted = as_digest(digest)
        return self._manifests.is_unread(wanted) or self._configs.is_unread(wanted)

    def save_config(self, raw: bytes, digest: Digest | str) -> Path:
        """Keep the exact bytes of a config. Raises DigestMismatch, StoreFull, StoreReadOnly, StoreError."""
        return self._configs.save(raw, as_digest(digest))

    def load_config(self, digest: Digest | str) -> ImageConfig:
        """Return the parsed config; its ``raw`` has the bytes.

        Raises NotInStore, StoreDamaged, InvalidDocument.
        """
        return self._configs.load(as_digest(digest))

    def read_config(self, digest: Digest | str) -> bytes:
        """Return the bytes of a config, that of an artifact, too. Raises NotInStore, StoreDamaged."""
        return self._configs.read(as_digest(digest))

    def has_config(self, digest: Digest | str) -> bool:
        """Say whether a config is in the store."""
        return self._configs.has(as_digest(digest))

    # Blobs

    def has_layer(self, digest: Digest | str) -> bool:
        """Say whether the compressed blob is in the store."""
        return self.open_blob(digest) is not None

    def verify_blobs_exist(self, layer_digests: Sequence[Digest | str]) -> bool:
        """Say whether all compressed blobs are in the store."""
        return all(self.has_layer(digest) for digest in layer_digests)

    def verify_layer(self, digest: Digest | str, *, tree: bool = True) -> bool:
        """Read a layer again and say whether it is what was stored.

        The blob must be there and hash to its name (image-spec, descriptor.md#verification). If the layer is
        extracted, its record must be good and, with *tree*, the directory equal to a second extraction,
        unless the store may only be read. What is wrong is logged. Raises StoreFull, WorkerDied.
        """
        from layerfs.store.verify import file_problem

        wanted = as_digest(digest)
        problem = file_problem(self._layout.blob(wanted), wanted)
        if problem is None and self._layout.tree(wanted).exists():
            problem = self._tree_problem(wanted, deep=tree and not self.readonly)
        if problem is not None:
            log.warning("layer %s: %s", wanted, problem)
        return problem is None

    def open_blob(self, digest: Digest | str) -> VerifiedBlob | None:
        """Return the published blob, None if it is not there. Costs one lstat."""
        return self._blobs.find(as_digest(digest))

    def stage_layer_download(
        self, digest: Digest | str, expected_size: int = -1, source: str = ""
    ) -> StagedDownload:
        """Begin or go on with the download of a blob of *expected_size* bytes (0 or less: unknown).

        Takes up the largest suspended download of that digest from that *source*, any name for where the
        bytes come from, that no process holds, and says in ``offset`` where to go on; what it holds is
        hashed again before anything is committed.
        Raises StoreFull, StoreReadOnly, StoreError.
        """
        wanted = as_digest(digest)
        self._require_writable(f"layer {wanted}")
        with disk_errors(str(self._layout.layers)):
            suspended = find_suspended(self._layout.layers, wanted, source)
        final = self._layout.blob(wanted)
        return stage_download(self.locks, wanted, final, expected_size, suspended, source)

    def discard_suspended(self, paths: Iterable[Path]) -> None:
        """Remove those of the staged downloads among *paths* that are in nobody's hands."""
        named = ((path, StagedName.parse(path.name)) for path in paths)
        resumable = (path for path, name in named if name and name.kind in ("downloading", "part"))
        discard_suspended(self.locks, resumable)

    def discard_downloads(self, digest: Digest, source: str) -> None:
        """Remove what is staged of a blob from *source* and in nobody's hands. Raises StoreError."""
        with disk_errors(str(self._layout.layers)):
            discard_suspended(self.locks, find_suspended(self._layout.layers, digest, source))

    def stage_config_download(self, digest: Digest | str) -> StagedDownload:
        """Begin the download of a config, of unknown size. Raises StoreFull, StoreReadOnly, StoreError."""
        wanted = as_digest(digest)
        self._require_writable(f"config {wanted}")
        return stage_download(self.locks, wanted, self._layout.config(wanted), -1)

    # Layer directories

    def open_layer(self, digest: Digest | str) -> LayerDir | None:
        """Return the complete layer directory, None if it is not there. Costs one lstat when known."""
        wanted = as_digest(digest)
        tree = self._layers.find(wanted)
        return None if tree is None else LayerDir(wanted, tree.path, tree.record)

    def has_tree(self, digest: Digest) -> bool:
        """Say whether there is a directory of the layer, complete or not: one lstat, and nothing is read."""
        return os.path.lexists(self._layout.tree(digest))

    def layer_problem(self, digest: Digest) -> str | None:
        """Say why `open_layer` returns nothing though there is a directory; None if nothing is known."""
        return self._layers.problem(digest)

    def stage_tree(self, digest: Digest | str) -> StagedTree:
        """Make the private directory for an extraction. Raises StoreFull, StoreReadOnly, StoreError."""
        wanted = as_digest(digest)
        self._require_writable(f"layer {wanted}")
        return self._layers.stage(wanted)

    def publish(self, tree: StagedTree, blob: VerifiedBlob, extraction: Extraction) -> LayerDir:
        """Give an extracted tree its final name; the only way to one. Losing a race is success.

        Raises DigestMismatch if the three are not of the same blob, StoreFull, StoreReadOnly, StoreError.
        """
        found = Digest.parse(extraction.digest)
        if not tree.digest == blob.digest == found or blob.size != extraction.blob_size:
            raise DigestMismatch(
                f"{blob.digest}: the tree for {tree.digest} was extracted from {found}, "
                f"{extraction.blob_size} bytes (expected {blob.size} bytes of the same blob)"
            )
        record = LayerRecord(
            state="pending",
            boot_id=self._boot_id,
            identity=tree.identity,
            native=self.capabilities.whiteout_devices,
            escaped=not self.capabilities.marker_names,
            layer=extraction,
        )
        published = self._layers.publish(tree, record)
        return LayerDir(found, published.path, published.record)

    def extract_layer(self, digest: Digest | str, tarball_path: str | os.PathLike[str]) -> LayerDir:
        """Extract a local tar, compressed or not, whose bytes hash to *digest*; nothing to do if it is there.

        Waits for whoever works on *digest* already, in any process; so the caller must not hold its lock.
        Raises NotInStore if there is no such file, DigestMismatch, InvalidLayer, StoreFull, StoreReadOnly,
        StoreError, WorkerDied; any failure removes what was extracted.
        """
        wanted = as_digest(digest)
        present = self.open_layer(wanted)
        if present is not None:
            return present
        self._require_writable(f"layer {wanted}")
        with self.lock(wanted):
            present = self.open_layer(wanted)
            if present is not None:
                return present
            with self.stage_tree(wanted) as tree:
                return self._extract_into(tree, utf8_path(tarball_path))

    @contextlib.contextmanager
    def second_extraction(self, digest: Digest) -> Iterator[tuple[StagedTree, Extraction]]:
        """Extract the blob of the store beside the layer directory; removed unless it is published.

        Raises NotInStore, DigestMismatch, InvalidLayer, StoreFull, StoreReadOnly, StoreError, WorkerDied.
        """
        with self.stage_tree(digest) as again:
            blob = self._layout.blob(digest)
            yield again, self._extractors.extract(blob, digest, again.path, again.tables.write)

    def remove_layer(self, digest: Digest | str) -> bool:
        """Take away the layer directory and the blob. True if there was either.

        Raises StoreError if a mount uses the layer: then both stay. StoreReadOnly.
        """
        wanted = as_digest(digest)
        removed = self.discard_layer(wanted)
        return self._blobs.discard(wanted) or removed

    def discard_blob(self, digest: Digest | str) -> bool:
        """Remove the compressed blob, for instance one that `verify_layer` refuses. True if there was one."""
        self._require_writable(f"removal of layer {digest}")
        return self._blobs.discard(as_digest(digest))

    def discard_layer(self, digest: Digest | str) -> bool:
        """Take the layer directory away; the blob stays, the sweeper deletes the files later.

        True if there was one. Raises StoreError if a mount uses it, StoreReadOnly.
        """
        wanted = as_digest(digest)
        self._require_writable(f"layer {wanted}")
        return self._layers.discard(wanted)

    # Covers

    def cover(self, layers: Sequence[Digest], merger: Merger = "") -> Path | None:
        """Return the published cover of a stack, base first, for *merger*; None if it is not there."""
        tree = self._covers.find(stack_digest(layers, merger))
        return None if tree is None else tree.path

    def publish_cover(self, layers: Sequence[Digest], merger: Merger = "") -> Path:
        """Compute the cover of a stack of complete layers, base first, for *merger* and publish it.

        Returns the published one if there is one; losing a race is success. Raises NotInStore if a layer is
        not there, StoreFull, StoreReadOnly, StoreError if the filesystem cannot hold a cover.
        """
        present = self.cover(layers, merger)
        if present is not None:
            return present
        opened = [self._require_layer(digest) for digest in layers]
        stack = stack_digest(layers, merger)
        if self.readonly:
            raise StoreReadOnly(
                f"cover {stack}: not in {self.images_dir}, which may only be read (expected one for these "
                f"{len(layers)} layers); layerfs pull of the image by the store's owner makes it"
            )
        from layerfs.store.covering import make_cover  # brings subprocess

        with self._covers.stage(stack) as tree:
            with disk_errors(f"cover {stack}: cannot write"):
                make_cover(
                    tree.path,
                    [layer.path for layer in opened],
                    sum(sum(layer.record.layer.tables) for layer in opened),
                    form=self.capabilities,
                    merger=merger,
                )
            record = CoverRecord(
                state="pending",
                boot_id=self._boot_id,
                identity=tree.identity,
                native=self.capabilities.whiteout_devices,
                layers=tuple(map(str, layers)),
                merger=merger,
            )
            return self._covers.publish(tree, record).path

    def discard_cover(self, layers: Sequence[Digest], merger: Merger = "") -> bool:
        """Take the cover of a stack away. True if there was one. Raises StoreError if a mount uses it."""
        self._require_writable("covers")
        return self._covers.discard(stack_digest(layers, merger))

    # Use and leftovers

    def usage(self) -> Usage:
        """Say which layers and covers are in use by mounts, in all mount namespaces that can be read.

        And by overlays of `layerfs overlay` that were detached, as far as they have a scratch.
        """
        return self._mounts.read(max_age=0)

    def blind(self, usage: Usage) -> str:
        """Say why *usage* may lack a mount that uses this store; empty if it lacks none."""
        return usage.blind(self._opening.reached_by)

    def lease(
        self,
        name: str,
        digests: Iterable[Digest | str],
        *,
        until: datetime | None = None,
        pid: int | None = None,
    ) -> HeldLease:
        """Keep layers, covers and images, by their digests, until a time or the end of a process.

        See `layerfs.store.leases.Leases.take`. Take it first and look with `open_layer` then.
        """
        self._require_writable(f"lease {name}")
        lease = self.leases.take(name, map(as_digest, digests), until=until, pid=pid)
        try:
            with self.locks.removal():  # nobody has things aside now who has not seen the lease
                return lease
        except BaseException:
            lease.release()
            raise

    def sweep(self, max_age: float = SUSPENDED_SECONDS) -> Swept:
        """Remove what killed processes left, and suspended downloads older than *max_age* seconds.

        Touches nothing that is complete or that a living process works on. Raises StoreReadOnly, StoreError.
        """
        self._require_writable("a sweep")
        with disk_errors(f"{self.images_dir}: cannot sweep"):
            swept = sweep(self._layout, self.locks, self._shelves(), self._mounts, max_age)
            return msgspec.structs.replace(swept, void=swept.void + self.lazy.objects.remove_void())

    def sweep_staged(self) -> Swept:
        """Remove as `sweep` does, but read no records: a store without leftovers takes moments."""
        self._require_writable("a sweep")
        with disk_errors(f"{self.images_dir}: cannot sweep"):
            return sweep(self._layout, self.locks, [], self._mounts, SUSPENDED_SECONDS)

    # Locks and durability

    def lock(self, digest: Digest | str, source: str = "") -> DigestLock:
        """Return the right to work on *digest* with bytes from *source*, not yet acquired.

        As a context manager it waits for it.
        """
        return self.locks.work(as_digest(digest), source)

    def make_durable(self) -> int:
        """Write all pending trees to the disk, with one syncfs, and say so in their records.

        Returns how many became durable. Raises StoreError if there was no syncfs: then they stay pending, and
        a reboot will have them extracted again. If the disk lost something since this process began them, or
        met them, they are taken away instead.
        """
        if self.readonly:
            return 0
        return self._durability.make_durable(self._shelves()) + self.lazy.objects.make_durable()

    def writing_back(self) -> contextlib.AbstractContextManager[None]:
        """Have the disk write while trees are made: `make_durable`, after that, has little left to do."""
        return contextlib.nullcontext() if self.readonly else writing_back(self.images_dir)

    def _shelves(self) -> list[TreeShelf[Any]]:
        return list(self.stock.shelves.values())

    def _extract_into(self, tree: StagedTree, tarball: Path) -> LayerDir:
        try:
            extraction = self._extractors.extract(tarball, tree.digest, tree.path, tree.tables.write)
        except (InvalidLayer, VerificationError) as exc:
            from layerfs.store.verify import file_problem

            # Who is at fault, the image or this disk? The store's own blob was right once.
            problem = (
                file_problem(tarball, tree.digest) if tarball == self._layout.blob(tree.digest) else None
            )
            if problem is None:
                raise
            raise StoreDamaged(
                f"layer {tree.digest}: {problem}; remove the layer and fetch it again"
            ) from exc
        return self.publish(tree, verified(tree.digest, tarball, extraction.blob_size), extraction)

    def _tree_problem(self, digest: Digest, *, deep: bool) -> str | None:
        layer = self.open_layer(digest)
        if layer is None:
            return "the layer directory has no record that can be believed"
        if not deep:
            return None
        from layerfs.store.verify import layer_differences

        with self.second_extraction(digest) as (again, extraction):
            return next(layer_differences(layer.path, layer.record, again, extraction), None)

    def _require_layer(self, digest: Digest) -> LayerDir:
        layer = self.open_layer(digest)
        if layer is None:
            raise NotInStore(f"layer {digest}: not extracted (expected at {self._layout.tree(digest)})")
        return layer

    def _require_writable(self, what: str) -> None:
        if self.readonly:
            raise StoreReadOnly(f"{what}: not possible, {self.images_dir} may only be read")
