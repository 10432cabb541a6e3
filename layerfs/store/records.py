"""The records beside trees: read strictly, believed only in the boot that wrote them or when durable.

Decides whether a record vouches for its tree; pure but for logging. A power
cut loses the page cache and nothing else does: so ``pending`` with this boot's id is as good as ``durable``,
and ``pending`` of another boot is worth nothing.
"""

import logging
from collections.abc import Iterator
from errno import EFBIG
from io import FileIO
from pathlib import Path
from typing import Final, Literal, TypeVar, get_args

import msgspec

from layerfs.errors import InvalidDigest, NotInStore, StoreDamaged
from layerfs.layer.record import RECORD_VERSION, Identity, LayerRecord
from layerfs.layer.tables import END, Tables
from layerfs.oci import Digest, stack_digest
from layerfs.store.disk import opened_file
from layerfs.store.layout import RECORD_SUFFIX

_HEAD_MAX: Final = 1 << 20
"""Bytes of the line that begins a record; that of a cover names its layers."""
_FIRST: Final = 4 << 10
"""Most of these lines are below 1 KiB."""
_CHUNK: Final = 1 << 20

log = logging.getLogger(__name__)


Merger = Literal["", "fuse-overlayfs"]
"""Who merges a stack: the kernel, or a program that wants a cover of its own."""
MERGERS: Final[tuple[Merger, ...]] = get_args(Merger)


class CoverRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a published cover, ``covers/<stack digest>.json``."""

    version: int = RECORD_VERSION
    state: Literal["pending", "durable"]
    boot_id: str
    identity: Identity
    native: bool
    """Whether it is for layers in overlay form."""
    layers: tuple[str, ...]
    """Blob digests of the stack, base first; their `stack_digest` is the cover's name."""
    merger: Merger = ""
    """Whom the cover is for; the kernel by default."""


Record = TypeVar("Record", LayerRecord, CoverRecord)


class _Versioned(msgspec.Struct, frozen=True):
    version: int


class LayerDir(msgspec.Struct, frozen=True):
    """A complete layer directory: markers and overlay form, as `layerfs.extract` left it; or a skeleton."""

    digest: Digest
    """Digest of the compressed blob; of the TOC for a skeleton."""
    path: Path
    record: LayerRecord

    def tables(self) -> Tables:
        """Read what the record lists, which may be megabytes. Raises NotInStore, StoreDamaged."""
        if not any(self.record.layer.tables):
            return Tables()
        return read_tables(self.record_path)

    @property
    def record_path(self) -> Path:
        """Where the record is."""
        return self.path.with_name(f"{self.path.name}{RECORD_SUFFIX}")


def encode_record(record: LayerRecord | CoverRecord) -> bytes:
    """Return the line that begins the file of *record*; the tables of a layer follow it."""
    return msgspec.json.encode(record) + b"\n"


def read_head(file: FileIO) -> bytes:
    """Return the line that begins a record, and no more of the file. Raises OSError."""
    head = b""
    while b"\n" not in head and (chunk := file.read(_FIRST)):
        head += chunk
        if len(head) > _HEAD_MAX:
            raise OSError(EFBIG, f"its first line is longer than {_HEAD_MAX} bytes")
    return head.partition(b"\n")[0]


def after_head(path: Path) -> Iterator[bytes]:
    """Yield what follows the first line of a record, piece by piece. Raises StoreDamaged."""
    with opened_file(path) as file:
        if file is not None:
            file.seek(len(read_head(file)) + 1)
            while piece := file.read(_CHUNK):
                yield piece


def read_tables(path: Path) -> Tables:
    """Return the tables of the layer whose record is at *path*. Raises NotInStore, StoreDamaged."""
    with opened_file(path) as file:
        if file is None:
            raise NotInStore(f"{path}: no such record (was the layer removed meanwhile?)")
        try:
            head = read_head(file)
            sizes = msgspec.json.decode(head, type=LayerRecord).layer.tables
        except msgspec.DecodeError as exc:
            raise StoreDamaged(f"{path}: {exc} (expected the record of a layer)") from exc
        file.seek(len(head) + 1)
        found = [b"" if not size else file.read(size) for size in sizes]
        if [*map(len, found)] != [*sizes] or any(table and not table.endswith(END) for table in found):
            raise StoreDamaged(f"{path}: shorter than it says (expected tables of {sizes} bytes)")
        return Tables(*found)


def read_opaques(path: Path, record: LayerRecord) -> bytes:
    """Return the table of opaque directories in the record at *path*, its first rows if it is long.

    Raises StoreDamaged.
    """
    whiteouts, opaques, *_ = record.layer.tables
    with opened_file(path) as file:
        if file is None:
            return b""
        file.seek(len(read_head(file)) + 1 + whiteouts)
        return file.read(min(opaques, _FIRST))


def decode_record(raw: bytes, type_: type[Record], digest: Digest) -> Record | None:
    """Read the record of *digest*; None, with a log line, for one that layerfs cannot have written."""
    try:
        version = msgspec.json.decode(raw, type=_Versioned).version
        if version != RECORD_VERSION:
            log.info("record of %s: version %d (expected %d)", digest, version, RECORD_VERSION)
            return None
        record = msgspec.json.decode(raw, type=type_)
        found = _subject(record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidDigest) as exc:
        log.warning("record of %s: %s (treated as absent)", digest, exc)
        return None
    if found != digest:
        log.warning("record of %s: describes %s (treated as absent)", digest, found)
        return None
    return record


def vouches(record: LayerRecord | CoverRecord, boot_id: str) -> bool:
    """Say whether the tree beside *record* is all there."""
    return record.state == "durable" or record.boot_id == boot_id


def _subject(record: LayerRecord | CoverRecord) -> Digest:
    if isinstance(record, LayerRecord):
        return Digest.parse(record.layer.digest)
    return stack_digest(map(Digest.parse, record.layers), record.merger)
