"""The table of compressions: a row is all that a format needs to be read as a layer or as a local archive.

The bytes decide which one it is; a media type is only compared (`layerfs.oci.mediatype`).
"""

import re
from importlib import import_module
from typing import Final, cast

import msgspec

from layerfs.compression.base import Open, RawStream
from layerfs.compression.faults import JudgedStream

SNIFFED: Final = 8
"""Bytes of a blob's begin that `sniff` looks at."""


class Format(msgspec.Struct, frozen=True):
    """One compression."""

    name: str
    """As records and errors spell it; for layers of the image specification the suffix of the media type.

    The module of this package that has this name and ``open_stream(raw) -> Stream`` reads the format; it is
    imported for the first such stream.
    """
    begin: re.Pattern[bytes]
    """What the first bytes match."""

    def open(self, raw: RawStream) -> JudgedStream:
        """Return the uncompressed bytes of *raw*, to be closed. Raises OutOfMemory."""
        module = import_module(f"layerfs.compression.{self.name}")
        return JudgedStream(raw, self.name, cast("Open", module.open_stream))


FORMATS: Final = (
    Format("gzip", re.compile(rb"\x1f\x8b")),
    # A skippable frame, which holds nothing, may come first (RFC 8878, section 3.1.2).
    Format("zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")),
    Format("bzip2", re.compile(rb"BZh")),
    Format("xz", re.compile(rb"\xfd7zXZ\0")),
)

NONE: Final = Format("none", re.compile(b""))


def sniff(start: bytes) -> Format:
    """Say by the first `SNIFFED` bytes of a blob how it is compressed; ``none`` if no row matches."""
    return next((each for each in FORMATS if each.begin.match(start)), NONE)
