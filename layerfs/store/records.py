"""The records beside trees: read strictly, believed only in the boot that wrote them or when durable.

Decides whether a record vouches for its tree; pure but for logging. A power
cut loses the page cache and nothing else does: so ``pending`` with this boot's id is as good as ``durable``,
and ``pending`` of another boot is worth nothing.
"""

import logging
from typing import Literal, TypeVar

import msgspec

from layerfs.errors import InvalidDigest
from layerfs.layer.record import RECORD_VERSION, LayerRecord
from layerfs.oci import Digest, stack_digest

MAX_RECORD_SIZE = 1 << 30
"""Bytes; a layer of five million entries, all of them markers, has a record of this order."""

log = logging.getLogger(__name__)


Merger = Literal["", "fuse-overlayfs"]
"""Who merges a stack: the kernel, or a program that wants a cover of its own."""


class CoverRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a published cover, ``covers/<stack digest>.json``."""

    version: int = RECORD_VERSION
    state: Literal["pending", "durable"]
    boot_id: str
    layers: tuple[str, ...]
    """Blob digests of the stack, base first; their `stack_digest` is the cover's name."""
    merger: Merger = ""
    """Whom the cover is for; the kernel by default."""


Record = TypeVar("Record", LayerRecord, CoverRecord)


def decode_record(raw: bytes, type_: type[Record], digest: Digest) -> Record | None:
    """Read the record of *digest*; None, with a log line, for one that layerfs cannot have written."""
    try:
        record = msgspec.json.decode(raw, type=type_)
        found = _subject(record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidDigest) as exc:
        log.warning("record of %s: %s (treated as absent)", digest, exc)
        return None
    if record.version != RECORD_VERSION:
        log.info("record of %s: version %d (expected %d)", digest, record.version, RECORD_VERSION)
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
