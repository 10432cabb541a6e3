"""Undoes a Content-Encoding that we did not ask for (RFC 9110, section 8.4). No I/O, bounded memory.

httpx would inflate whatever a chunk holds at once, a thousandfold; this hands out small pieces.
"""

import zlib
from collections.abc import Iterator
from typing import Final

from layerfs.errors import RegistryMisbehaved

_PIECE: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
"""RFC 1952, section 2.3.1."""
_AUTOMATIC: Final = zlib.MAX_WBITS | 32  # the header says whether it is gzip or zlib


class Decoder:
    """Inflates ``gzip`` and ``deflate``, also several gzip members; bytes pass as they are without either.

    `feed` each chunk and take all that it yields; then `finished` says whether more must come.
    """

    def __init__(self, encoding: str) -> None:
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise RegistryMisbehaved(f"Content-Encoding {encoding[:40]!r} (expected identity, as asked for)")
        self._inflater = zlib.decompressobj(_AUTOMATIC) if encoding not in ("", "identity") else None
        self.finished = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what *data* holds, in pieces. Raises RegistryMisbehaved for what does not inflate."""
        if self._inflater is None:
            yield data
            return
        while data:
            if self._inflater.eof:
                self._inflater = zlib.decompressobj(_AUTOMATIC)
            try:
                piece = self._inflater.decompress(data, _PIECE)
            except zlib.error as exc:
                raise RegistryMisbehaved(f"unreadable compressed body: {exc}") from exc
            self.finished = self._inflater.eof
            data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            if piece:
                yield piece


def is_true(encoding: str, first: bytes, compression: str) -> bool:
    """Say whether a body that begins with *first* is encoded as it says, around a blob of *compression*.

    Some servers call a blob encoded because it is compressed itself. With a Content-Length the size tells;
    in chunks only the bytes do: what comes out has to begin as the blob does.
    """
    try:
        piece = next(Decoder(encoding).feed(first), b"")
    except RegistryMisbehaved:
        return False
    return not piece or compression != "gzip" or piece.startswith(_GZIP[: len(piece)])
