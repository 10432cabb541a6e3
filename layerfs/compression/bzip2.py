"""bzip2 streams, several as one: layers and archives of older tools."""

import bz2

from layerfs.compression.base import RawStream, Stream
from layerfs.compression.chained import ChainedStream


def open_stream(raw: RawStream) -> Stream:
    """Return the uncompressed bytes of *raw*."""
    return ChainedStream(raw, bz2.BZ2Decompressor)
