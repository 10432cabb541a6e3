"""Tables of contents: what a layer's annotations say of one.

A TOC lists the files of a layer and the digests of their bytes. The manifest's digest covers its annotations,
these cover the TOC, the TOC covers the files: so a file can be verified without the rest of its layer.

Sources: the description of eStargz in containerd/stargz-snapshotter; containers/storage pkg/chunked; what
skopeo 1.9 and 1.18 and ctr-remote 0.12 and 0.15 write.
"""

import re
from enum import Enum
from typing import Final

import msgspec

from layerfs.errors import InvalidDocument
from layerfs.oci import mediatype
from layerfs.oci.descriptor import Descriptor
from layerfs.oci.digest import Digest
from layerfs.oci.documents import digest

TOC_MAX: Final = 150 << 20
"""Bytes of a TOC or a tar-split, compressed or not: what containers/storage reads at most."""

_STARGZ: Final = "containerd.io/snapshot/stargz/toc.digest"
_CHUNKED: Final = "io.github.containers.zstd-chunked."
_CHUNKED_OLD: Final = "io.containers.zstd-chunked."
"""Written by older containers/storage, Debian 12's among them, and by stargz-snapshotter to this day."""
_CHECKSUM: Final = "manifest-checksum"
_POSITION: Final = "manifest-position"
_SPLIT: Final = "tarsplit-position"
_CRFS: Final = "1"
"""The only kind of TOC there is in a position."""

_TOC_NUMBERS: Final = r"([0-9]{1,19}):([0-9]{1,19}):([0-9]{1,19}):([0-9]{1,19})"
_SPLIT_NUMBERS: Final = r"([0-9]{1,19}):([0-9]{1,19}):([0-9]{1,19})"


class TocKind(Enum):
    """A format of TOCs."""

    ESTARGZ = "eStargz"
    ZSTD_CHUNKED = "zstd:chunked"
    """As containers/storage writes it."""
    STARGZ_ZSTD = "stargz's zstd:chunked"
    """As stargz-snapshotter writes it: the TOC of eStargz in a blob of zstd frames."""


class Stretch(msgspec.Struct, frozen=True):
    """Compressed bytes inside a blob."""

    start: int
    length: int
    unpacked: int | None = None
    """Bytes of what they are compressed from, where that is said."""

    @property
    def end(self) -> int:
        """The offset in the blob behind them."""
        return self.start + self.length


class TocPlace(msgspec.Struct, frozen=True):
    """Where in its blob the TOC of a layer is, and what it must hash to."""

    kind: TocKind
    digest: Digest
    """That of the compressed bytes for ZSTD_CHUNKED, of the JSON in them for the other two."""
    stretch: Stretch | None = None
    """None where only the end of the blob says it (`layerfs.layer.footer`)."""
    split: Stretch | None = None
    """Where tar-split is. Whether it may be trusted, and so is of use, the TOC says."""


def toc_place(layer: Descriptor) -> TocPlace | None:
    """Return where the TOC of *layer* is; None if its annotations name none.

    Raises InvalidDocument for annotations that contradict each other, the blob or themselves.
    """
    said = layer.annotations
    stargz = said.get(_STARGZ)
    new, old = (said.get(prefix + _CHECKSUM) for prefix in (_CHUNKED, _CHUNKED_OLD))
    if new is not None and (stargz is not None or old is not None):
        other = _STARGZ if stargz is not None else _CHUNKED_OLD + _CHECKSUM
        raise InvalidDocument(
            f"layer {layer.digest}: annotations {_CHUNKED + _CHECKSUM} and {other} (one TOC)"
        )
    if new is not None:
        return _chunked(layer, _CHUNKED, TocKind.ZSTD_CHUNKED, new)
    if stargz is None:
        return None if old is None else _chunked(layer, _CHUNKED_OLD, TocKind.ZSTD_CHUNKED, old)
    if old is not None:
        return _chunked(layer, _CHUNKED_OLD, TocKind.STARGZ_ZSTD, stargz)
    is_zstd = mediatype.compression_of(layer.media_type) == "zstd"
    kind = TocKind.STARGZ_ZSTD if is_zstd else TocKind.ESTARGZ
    return TocPlace(kind, digest(stargz, f"layer {layer.digest}: annotation {_STARGZ}"))


def usable_place(layer: Descriptor) -> TocPlace | None:
    """Return where the TOC of *layer* is; None, too, for annotations that `toc_place` refuses."""
    if not layer.annotations:
        return None
    try:
        return toc_place(layer)
    except InvalidDocument:
        return None


def _chunked(layer: Descriptor, prefix: str, kind: TocKind, checksum: str) -> TocPlace:
    where = f"layer {layer.digest}: annotation"
    position = f"{where} {prefix + _POSITION}"
    numbers = _numbers(_TOC_NUMBERS, layer.annotations.get(prefix + _POSITION, ""), position)
    if numbers.pop() != int(_CRFS):
        raise InvalidDocument(f"{position}: another kind of TOC (expected :{_CRFS} at the end)")
    toc = _stretch(numbers, layer, position)
    split = layer.annotations.get(prefix + _SPLIT)
    if split is not None:
        position = f"{where} {prefix + _SPLIT}"
        split_at = _stretch(_numbers(_SPLIT_NUMBERS, split, position), layer, position)
        if split_at.start < toc.end and toc.start < split_at.end:
            raise InvalidDocument(f"{position}: overlaps the TOC")
    else:
        split_at = None
    return TocPlace(kind, digest(checksum, f"{where} with the digest of a TOC"), toc, split_at)


def _numbers(pattern: str, text: str, where: str) -> list[int]:
    found = re.fullmatch(pattern, text, re.ASCII)
    if found is None:
        raise InvalidDocument(f"{where}: {text[:100]!r} (expected decimal numbers with colons between them)")
    return [int(number) for number in found.groups()]


def _stretch(numbers: list[int], layer: Descriptor, where: str) -> Stretch:
    found = Stretch(*numbers)
    if not (found.start and found.length and found.unpacked) or found.end > layer.size:
        raise InvalidDocument(f"{where}: {found.length} bytes at {found.start} of a blob of {layer.size}")
    if max(found.length, found.unpacked) > TOC_MAX:
        raise InvalidDocument(
            f"{where}: {found.length} bytes, {found.unpacked} unpacked (expected at most {TOC_MAX})"
        )
    return found
