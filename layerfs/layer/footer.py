"""The end of a lazy blob: where its TOC begins, where annotations do not say it. Pure.

Formats: containerd/stargz-snapshotter, its description of eStargz and estargz/zstdchunked. A footer of
eStargz is an empty member of gzip (RFC 1952) whose extra field holds the offset as hexadecimal digits.
"""

import re
from typing import Final

from msgspec.structs import replace

from layerfs.errors import InvalidToc
from layerfs.oci.toc import TOC_MAX, Stretch, TocKind, TocPlace

_TAIL_MIN: Final = 64 << 10
_TAIL_MAX: Final = 256 << 10
_TAIL_SHARE: Final = 1024

_EMPTY: Final = rb"\x01\x00\x00\xff\xff\x00{8}"
"""A stored block without content, checksum and size of nothing."""
_MEMBER: Final = rb"\x1f\x8b\x08\x04.{6}"
_ESTARGZ: Final = re.compile(_MEMBER + rb"\x1a\x00SG\x16\x00([0-9a-f]{16})STARGZ" + _EMPTY, re.DOTALL)
_LEGACY: Final = re.compile(_MEMBER + rb"\x16\x00([0-9a-f]{16})STARGZ" + _EMPTY, re.DOTALL)
_EXTERNAL: Final = re.compile(_MEMBER + rb"\x15\x00SG\x11\x00STARGZEXTERNALTOC" + _EMPTY, re.DOTALL)
_ESTARGZ_SIZE, _LEGACY_SIZE, _EXTERNAL_SIZE = 51, 47, 46

_ZSTD_SIZE: Final = 40
_ZSTD_MAGIC: Final = b"GnUlInUx"
FRAME_HEADER: Final = 8
"""Bytes in front of what a skippable frame holds (RFC 8878, section 3.1.2)."""


def tail_of(blob_size: int) -> int:
    """Return how many bytes of a blob's end are worth asking for at once: the footer, and many a TOC with it.

    What lacks costs a second request, what is too much its time on the line: at 25 MB/s and 20 ms a request
    both are the same for 512 KiB. So it is a share of the blob, which the five layers of an image of 1 GB
    bring to less than 1 MB.
    """
    return min(max(_TAIL_MIN, blob_size // _TAIL_SHARE), _TAIL_MAX, blob_size)


def locate(place: TocPlace, tail: bytes, blob_size: int) -> TocPlace:
    """Return *place* with where its TOC is; *tail* are the last bytes of the blob, as many as `tail_of` says.

    Raises InvalidToc.
    """
    if place.stretch is not None:
        return place
    find = _estargz if place.kind is TocKind.ESTARGZ else _zstd
    found = find(tail, blob_size)
    if not 0 < found.start < found.end <= blob_size:
        raise InvalidToc(f"footer: a TOC of {found.length} bytes at {found.start} of a blob of {blob_size}")
    if max(found.length, found.unpacked or 0) > TOC_MAX:
        raise InvalidToc(f"footer: a TOC of {found.length} bytes (expected at most {TOC_MAX})")
    return replace(place, stretch=found)


def _estargz(tail: bytes, blob_size: int) -> Stretch:
    if _EXTERNAL.fullmatch(tail[-_EXTERNAL_SIZE:]):
        raise InvalidToc(
            "footer: eStargz with an external TOC, in an image of its own (expected it in the blob)"
        )
    for pattern, size in ((_ESTARGZ, _ESTARGZ_SIZE), (_LEGACY, _LEGACY_SIZE)):
        found = pattern.fullmatch(tail[-size:])
        if found is not None:
            start = int(found[1], 16)
            return Stretch(start, blob_size - size - start)
    raise InvalidToc(f"footer: {tail[-_ESTARGZ_SIZE:].hex()} (expected one of eStargz)")


def _zstd(tail: bytes, blob_size: int) -> Stretch:
    footer = tail[-_ZSTD_SIZE:]
    if len(footer) < _ZSTD_SIZE or footer[-8:] != _ZSTD_MAGIC:
        raise InvalidToc(f"footer: {footer.hex()} (expected one of stargz's zstd:chunked)")
    start, length, unpacked, kind = (int.from_bytes(footer[at : at + 8], "little") for at in range(0, 32, 8))
    found = Stretch(start, length, unpacked)
    if kind != 1 or not unpacked or found.end > blob_size - _ZSTD_SIZE - FRAME_HEADER:
        raise InvalidToc(f"footer: a TOC of kind {kind}, {length} bytes at {start} of a blob of {blob_size}")
    return found
