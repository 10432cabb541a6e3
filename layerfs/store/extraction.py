"""Extraction of local blobs by worker processes, for callers that fetch by their own means.

Moves nothing itself: owns a pool of extractors, started when it is first needed. The daemon has a pool
of its own, in fetch; `job_for` describes a job to either.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from layerfs.errors import NotInStore
from layerfs.extract.job import ExtractJob, SkeletonJob, TreeJob
from layerfs.layer.budgets import Budgets
from layerfs.layer.record import Extraction
from layerfs.oci import Digest
from layerfs.oci.toc import TocPlace
from layerfs.store.owner import Capabilities

if TYPE_CHECKING:
    from layerfs.extract.client import ExtractorPool, Keep

log = logging.getLogger(__name__)


def job_for(
    capabilities: Capabilities,
    budgets: Budgets,
    blob: Path,
    digest: Digest,
    target: Path,
    *,
    size: int = -1,
    media_type: str = "",
    complete: bool = True,
) -> ExtractJob:
    """Describe the extraction of *blob* into the empty directory *target*, in the form of the store.

    *size* is below 0 if it is unknown. Unless *complete* the blob may still grow.
    """
    return ExtractJob(
        blob=os.fspath(blob),
        target=os.fspath(target),
        digest=str(digest),
        size=size,
        media_type=media_type,
        owner=capabilities.owner,
        whiteout_devices=capabilities.whiteout_devices,
        marker_names=capabilities.marker_names,
        complete=complete,
        budgets=budgets,
    )


def skeleton_job_for(
    capabilities: Capabilities,
    budgets: Budgets,
    toc: tuple[Path, Path | None],
    place: TocPlace,
    blob_size: int,
    target: Path,
) -> SkeletonJob:
    """Describe the making of a skeleton in the empty directory *target*, in the form of the store.

    *toc* are the files with the bytes of the TOC and of its tar-split, *place* says where in the blob of
    *blob_size* bytes these were.
    """
    path, split = toc
    return SkeletonJob(
        toc=os.fspath(path),
        split="" if split is None else os.fspath(split),
        place=place,
        blob_size=blob_size,
        target=os.fspath(target),
        owner=capabilities.owner,
        whiteout_devices=capabilities.whiteout_devices,
        budgets=budgets,
    )


class Extractors:
    """The workers of one `ImageStorage`. Thread-safe."""

    def __init__(self, capabilities: Callable[[], Capabilities], budgets: Budgets) -> None:
        self.capabilities = capabilities
        """Says in which form the trees are."""
        self.budgets = budgets
        self._mutex = threading.Lock()
        self._pool: ExtractorPool | None = None

    def extract(self, blob: Path, digest: Digest, target: Path, keep: "Keep") -> Extraction:
        """Extract the tar at *blob*, compressed or not, into the empty directory *target*.

        *keep* gets the record's tables. Raises NotInStore if there is no such file, DigestMismatch,
        InvalidLayer, StoreFull, WorkerDied.
        """
        if not blob.is_file():
            raise NotInStore(f"{blob}: no such file (expected the layer {digest})")
        return self._run(job_for(self.capabilities(), self.budgets, blob, digest, target), keep)

    def make_skeleton(self, job: SkeletonJob, keep: "Keep") -> Extraction:
        """Make a skeleton in an empty directory. For `layerfs.store.lazy.RunSkeleton`."""
        return self._run(job, keep)

    def _run(self, job: TreeJob, keep: "Keep") -> Extraction:
        with self._workers().extractor() as extractor:
            extractor.start(job)
            try:
                return extractor.result(keep)
            finally:
                for warning in extractor.warnings:
                    log.warning("%s: %s", job.digest, warning)

    def close(self) -> None:
        """End the workers; the next extraction starts others."""
        with self._mutex:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _workers(self) -> "ExtractorPool":
        # Late: whoever only reads a store loads no worker code.
        from layerfs.extract.client import ExtractorPool

        with self._mutex:
            if self._pool is None:
                self._pool = ExtractorPool()
            return self._pool
