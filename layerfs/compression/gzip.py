"""gzip streams (RFC 1952), several members as one, by ISA-L: the fastest inflater that Python has."""

from gzip import BadGzipFile
from typing import BinaryIO, Final, cast

from isal import isal_zlib

from layerfs.compression.base import CHUNK, RawStream, Stream
from layerfs.errors import InvalidArchive

# The last for a header that is longer than the reader's buffer.
_ERRORS: Final = (BadGzipFile, EOFError, cast("type[Exception]", isal_zlib.error), OverflowError)


class GzipStream:
    """The uncompressed bytes of a gzip blob."""

    def __init__(self, raw: RawStream) -> None:
        # Takes any object with `read`, where the public reader wants a file (tests/test_libraries.py).
        self._reader = isal_zlib._GzipReader(cast("BinaryIO", raw), CHUNK)

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of *buffer*; 0 at the end. Raises InvalidArchive."""
        try:
            return int(self._reader.readinto(buffer))
        except _ERRORS as exc:
            raise InvalidArchive(f"gzip: {exc}") from None


def open_stream(raw: RawStream) -> Stream:
    """Return the uncompressed bytes of *raw*."""
    return GzipStream(raw)
