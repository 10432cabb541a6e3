"""xz streams, several as one with padding between them: layers and archives of older tools."""

import lzma
from typing import Final

from layerfs.compression.base import MEMORY_MAX, RawStream, Stream
from layerfs.compression.chained import ChainedStream

_OVERHEAD: Final = 1 << 24
"""Bytes that the decoder needs beside its dictionary."""


def open_stream(raw: RawStream) -> Stream:
    """Return the uncompressed bytes of *raw*."""

    def decompressor() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY_MAX + _OVERHEAD)

    return ChainedStream(raw, decompressor)
