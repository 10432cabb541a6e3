"""One `SkeletonJob` in the inflating process: a verified TOC to members, and to the table of contents.

Parses; the writer alone touches the tree, and has each entry as soon as it is judged by itself. The TOC's
bytes are small and here, so whoever is at fault for a failure is the image, or else the disk.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from layerfs import errors
from layerfs.errors import LayerfsError, OutOfMemory
from layerfs.extract.job import Done, Failed, Listed, SkeletonJob
from layerfs.extract.ring import Feeder
from layerfs.extract.stubs import Stub, feed, stub_of
from layerfs.extract.tocs import read_toc
from layerfs.extract.writer import Unwritten, Written
from layerfs.host.oserrors import disk_errors
from layerfs.layer.contents import content_row, contents_by_id
from layerfs.layer.record import Extraction
from layerfs.layer.toc import Content, Entry
from layerfs.oci.toc import TocKind

_RESULT: Final = msgspec.json.Decoder(Written | Unwritten)
_PIECE: Final = 64 << 10
"""Bytes of the table that are said at a time."""
_COMPRESSIONS: Final = {TocKind.ESTARGZ: "gzip", TocKind.ZSTD_CHUNKED: "zstd", TocKind.STARGZ_ZSTD: "zstd"}

Relay = Callable[[bytes], None]

log = logging.getLogger(__name__)


def run(job: SkeletonJob, feeder: Feeder, relay: Relay) -> Done | Failed:
    """Make one skeleton; *relay* what is listed. Raises PartnerDied if the writer is gone."""
    feeder.start(msgspec.json.encode(job))
    rows: list[bytes] = []
    failure: LayerfsError | None = None
    try:
        rows = _move(job, feeder)
    except LayerfsError as exc:
        failure = exc
    except MemoryError:
        failure = OutOfMemory("the extractor lacks memory (the image is not at fault)")
    aborted = failure is not None or feeder.writer_failed
    written = _RESULT.decode(feeder.finish(relay, aborted=aborted))
    if failure is not None:
        return Failed(errors.name_of(failure), str(failure), written.warnings)
    if isinstance(written, Unwritten):
        return Failed(written.error, written.message, written.warnings)
    size = _list(rows, relay)
    return Done(_extraction(job, written, len(rows), size), written.warnings)


def _move(job: SkeletonJob, feeder: Feeder) -> list[bytes]:
    """Give the writer the members of the TOC; return the rows of its table, while that one is at work."""
    with disk_errors(f"{job.toc}: cannot read"):
        raw = Path(job.toc).read_bytes()
        split = Path(job.split).read_bytes() if job.split else b""
    contents: list[tuple[str, Content]] = []
    stubs = _stubs(read_toc(raw, job.place, job.blob_size, job.budgets, split), contents)
    feed(stubs, feeder)
    for _ in stubs:  # the writer has failed: if the TOC breaks a rule, that is what there is to say
        pass
    return [content_row(id_, content) for id_, content in contents_by_id(contents)]


def _stubs(entries: Iterable[Entry], contents: list[tuple[str, Content]]) -> Iterator[Stub]:
    """Yield what the writer makes of *entries*; note the *contents* of files."""
    for entry in entries:
        content = entry.content
        if content is None:
            yield stub_of(entry.member, "")
        else:
            id_ = content.id
            contents.append((id_, content))
            yield stub_of(entry.member, id_)


def _list(rows: Iterable[bytes], relay: Relay) -> int:
    """Say the table in pieces; return its bytes."""
    said, piece = 0, bytearray()
    for row in rows:
        piece += row
        if len(piece) >= _PIECE:
            said += _say(piece, relay)
            piece = bytearray()
    return said + _say(piece, relay)


def _say(piece: bytearray, relay: Relay) -> int:
    if piece:
        relay(msgspec.json.encode(Listed(bytes(piece))))
    return len(piece)


def _extraction(job: SkeletonJob, written: Written, objects: int, size: int) -> Extraction:
    return Extraction(
        digest=job.digest,
        diff_id="",
        blob_size=job.blob_size,
        tar_size=0,
        compression=_COMPRESSIONS[job.place.kind],
        entries=written.entries,
        files=written.files,
        file_bytes=written.file_bytes,
        whiteouts=written.rows[0],
        opaques=written.rows[1],
        implied=written.rows[2],
        lost=written.rows[3],
        tables=written.tables,
        objects=objects,
        contents=size,
        owner=job.owner,
    )
