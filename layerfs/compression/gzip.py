"""gzip streams (RFC 1952), several members as one, by ISA-L: the fastest inflater that Python has."""

from typing import BinaryIO, cast

from isal import isal_zlib

from layerfs.compression.base import CHUNK, RawStream, Stream


def open_stream(raw: RawStream) -> Stream:
    """Return the uncompressed bytes of *raw*."""
    # Takes any object with `read`, where the public reader wants a file (tests/test_libraries.py).
    return cast("Stream", isal_zlib._GzipReader(cast("BinaryIO", raw), CHUNK))
