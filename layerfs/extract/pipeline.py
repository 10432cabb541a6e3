"""One job in the inflating process: blob to ring, both digests on the way, the verdict at the end.

Who is at fault, in the order in which `verdict` looks:

1. The blob could not be read to its end: its size differs, the disk fails, the download was given up.
   Nothing that was made of it says anything about the image.
2. The whole blob was read and hashes to another digest: the registry sent other bytes, and whatever is
   wrong with the archive in them is no wonder. Therefore the rest of a complete blob is still read after
   its archive broke. A blob that is still growing is not: its downloader hashes it, and reports a wrong
   digest itself.
3. The archive is broken, or exceeds a budget: the image is at fault.
4. The tree could not be written: the writer says whether the image, the disk or the store's owner is at
   fault.
"""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

import msgspec

from layerfs import errors
from layerfs.compression import CHUNK, Prefixed, Stream, sniff
from layerfs.compression.formats import NONE, SNIFFED
from layerfs.errors import (
    BudgetExceeded,
    DigestMismatch,
    GivenUp,
    LayerfsError,
    NobodyReads,
    OutOfMemory,
    SizeMismatch,
    StoreError,
)
from layerfs.extract.hashing import HashThread, mismatch
from layerfs.extract.job import Done, ExtractJob, Failed
from layerfs.extract.ring import SLOTS, Feeder
from layerfs.extract.tail import Growth, Tail
from layerfs.extract.writer import Unwritten, Written
from layerfs.layer.record import Extraction
from layerfs.oci import mediatype

log = logging.getLogger(__name__)

_RATIO_FREE: Final = 64 << 20
"""Uncompressed bytes before the ratio is looked at: small layers of zeros compress a lot."""
_RATIO_FREE_GROWING: Final = 1 << 30
"""The same while the blob still comes, and its size is only a promise: a sound layer may begin with zeros."""

_DIFF_ID_HASH: Final = "sha256"
"""Archives are hashed by this, and by the algorithm of the blob's digest if that is another."""
_RESULT: Final = msgspec.json.Decoder(Written | Unwritten)
_OF_THE_BLOB: Final = (SizeMismatch, StoreError, GivenUp, OutOfMemory)
"""Failures of reading the blob, or of having no room for it: they leave nothing to hash."""


def verdict(
    failure: LayerfsError | None, written: Written | Unwritten, wrong: DigestMismatch | None
) -> LayerfsError | Unwritten | None:
    """Return why a job failed, None if it did not: see the head of this module.

    *failure* is of reading and inflating, *wrong* of the digest; None where no whole blob was hashed.
    """
    if isinstance(failure, _OF_THE_BLOB):
        return failure
    if wrong is not None:
        return wrong
    if failure is not None:
        return failure
    return written if isinstance(written, Unwritten) else None


class _Archive(msgspec.Struct):
    """What the stream was found to be."""

    compression: str = "none"
    size: int = 0
    is_blob: bool = False
    """Whether the archive is the blob, byte for byte, and one hash does for both."""


def run(job: ExtractJob, growth: Growth, feeder: Feeder, relay: Callable[[bytes], None]) -> Done | Failed:
    """Extract one blob; *relay* what the writer lists. Raises PartnerDied if the writer is gone."""
    algorithm = job.digest.partition(":")[0]
    blob_hash = HashThread(algorithm)
    tar_hashes = [HashThread(name) for name in dict.fromkeys((_DIFF_ID_HASH, algorithm))]
    try:
        tail = Tail(job.blob, job.size, growth, blob_hash)
    except LayerfsError as exc:
        for hasher in (blob_hash, *tar_hashes):
            hasher.finish()
        return Failed(errors.name_of(exc), str(exc))
    try:
        return _Run(job, tail, feeder, blob_hash, tar_hashes).extract(relay)
    finally:
        tail.close()


class _Run:
    def __init__(
        self,
        job: ExtractJob,
        tail: Tail,
        feeder: Feeder,
        blob_hash: HashThread,
        tar_hashes: list[HashThread],
    ) -> None:
        self._job = job
        self._tail = tail
        self._feeder = feeder
        self._blob_hash = blob_hash
        self._tar_hashes = tar_hashes
        self._archive = _Archive()
        self._since = time.process_time()

    def extract(self, relay: Callable[[bytes], None]) -> Done | Failed:
        self._feeder.start(msgspec.json.encode(self._job))
        failure: LayerfsError | None = None
        try:
            self._inflate()
        except NobodyReads:
            pass  # the writer says why
        except LayerfsError as exc:
            failure = exc
        except MemoryError:
            failure = OutOfMemory("the extractor lacks memory (the image is not at fault)")
        aborted = failure is not None or self._feeder.writer_failed
        written = _RESULT.decode(self._feeder.finish(relay, aborted=aborted))
        broken = failure is not None or isinstance(written, Unwritten)
        whole = self._job.complete or not broken
        if whole:
            failure = self._read_rest(failure)
        digest, diff_ids = self._blob_hash.finish(), [hasher.finish() for hasher in self._tar_hashes]
        if self._archive.is_blob:
            diff_ids[-1] = digest
        reason = verdict(failure, written, mismatch(digest, self._job.digest) if whole else None)
        warnings = (*written.warnings, *self._warnings())
        if isinstance(reason, Unwritten):
            return Failed(reason.error, reason.message, warnings)
        if reason is not None:
            return Failed(errors.name_of(reason), str(reason), warnings)
        assert isinstance(written, Written), "verdict returns an Unwritten"
        return Done(self._extraction(written, digest, *diff_ids), warnings)

    def _inflate(self) -> None:
        """Move the archive into the ring, until its end or until the writer has failed."""
        start = b""
        while len(start) < SNIFFED and (more := self._tail.read(CHUNK)):
            start += more
        found = sniff(start)
        self._archive.compression = found.name
        self._archive.is_blob = found is NONE
        with closing(found.open(Prefixed(start, self._tail))) as stream:
            self._move(stream)

    def _move(self, stream: Stream) -> None:
        feeder = self._feeder
        hashers = self._tar_hashes[:-1] if self._archive.is_blob else self._tar_hashes
        while True:
            slot = feeder.slot()
            for hasher in hashers:
                hasher.wait_done(SLOTS - 1)
            if feeder.writer_failed:
                return
            size = _fill(stream, slot)
            if size:
                self._archive.size += size
                self._check_budgets()
                for hasher in hashers:
                    hasher.put(slot[:size])
                feeder.publish(size)
            if size < len(slot):
                return

    def _check_budgets(self) -> None:
        size, budgets = self._archive.size, self._job.budgets
        if size > budgets.max_layer_bytes:
            raise BudgetExceeded(f"archive: more than {budgets.max_layer_bytes} bytes (max_layer_bytes)")
        whole = self._job.complete and self._job.size > 0
        free, blob = (_RATIO_FREE, self._job.size) if whole else (_RATIO_FREE_GROWING, self._tail.offset)
        if size > free and size > budgets.max_ratio * blob:
            raise BudgetExceeded(f"archive: {size} bytes out of {blob} (max_ratio is {budgets.max_ratio})")
        if time.process_time() - self._since > budgets.max_cpu_seconds:
            raise budgets.cpu_exceeded("inflating the blob")

    def _read_rest(self, failure: LayerfsError | None) -> LayerfsError | None:
        """Let the hasher have the rest of the blob, unless it was the reading itself that failed."""
        if isinstance(failure, _OF_THE_BLOB):
            return failure
        try:
            self._tail.drain()
            self._tail.check_size()
        except LayerfsError as exc:
            return exc
        return failure

    def _warnings(self) -> tuple[str, ...]:
        found = self._archive.compression
        if not mediatype.promises_other(self._job.media_type, found):
            return ()
        return (f"compression is {found}, but the media type is {self._job.media_type}",)

    def _extraction(self, written: Written, digest: str, diff_id: str, own_diff_id: str = "") -> Extraction:
        return Extraction(
            digest=digest,
            diff_id=diff_id,
            own_diff_id=own_diff_id,
            blob_size=self._tail.offset,
            tar_size=self._archive.size,
            compression=self._archive.compression,
            entries=written.entries,
            files=written.files,
            file_bytes=written.file_bytes,
            whiteouts=written.rows[0],
            opaques=written.rows[1],
            implied=written.rows[2],
            lost=written.rows[3],
            tables=written.tables,
            owner=self._job.owner,
        )


def _fill(stream: Stream, slot: memoryview) -> int:
    """Fill *slot* from the front; less than all of it means the end of the stream."""
    filled = 0
    while filled < len(slot):
        size = stream.readinto(slot[filled:])
        if not size:
            break
        filled += size
    return filled
