"""Who is at fault when a decompressor fails: the one place that knows what libraries raise.

Whatever a library raises for bytes that it was handed, the bytes are bad; but for lack of memory the image is
never blamed, and what the source of the compressed bytes raises passes through as it is.
"""

import re
from contextlib import suppress
from typing import Final

from layerfs.compression.base import Open, RawStream, Stream
from layerfs.errors import InvalidArchive, LayerfsError, OutOfMemory

_NO_MEMORY: Final = re.compile(
    r"(?i)not enough memory|allocation error|(cannot|could not|unable to) allocate"
)
"""How zstd says it, in the error that it has for all else, too (``ZSTD_error_memory_allocation``)."""


def judged(exc: Exception, name: str) -> LayerfsError:
    """Return what *exc* of the library that reads the format *name* means."""
    if isinstance(exc, MemoryError) or _NO_MEMORY.search(str(exc)):
        return OutOfMemory(f"{name}: {str(exc) or 'no memory'} (the decoder needs more than there is)")
    return InvalidArchive(f"{name}: {str(exc) or type(exc).__name__}")


class _Source:
    """Compressed bytes, remembering whether it was reading them that failed."""

    def __init__(self, raw: RawStream) -> None:
        self._raw = raw
        self.has_failed = False

    def read(self, size: int, /) -> bytes:
        """Return at most *size* bytes, nothing at the end."""
        self.has_failed = True
        data = self._raw.read(size)
        self.has_failed = False
        return data

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of *buffer*; 0 at the end."""
        self.has_failed = True
        size = self._raw.readinto(buffer)
        self.has_failed = False
        return size


def _clear_frames(exc: Exception) -> None:
    """Let go of what the calls that raised *exc* hold, as traceback.clear_frames, which is long to import."""
    step = exc.__traceback__
    while step is not None:
        with suppress(RuntimeError):  # it still runs
            step.tb_frame.clear()
        step = step.tb_next


class JudgedStream:
    """What a library's decoder makes of compressed bytes; raises errors of layerfs only.

    Owns the decoder: `close` frees it and its window, whoever still holds this stream or an error of it.
    """

    def __init__(self, raw: RawStream, name: str, make: Open) -> None:
        """Read *raw* by the decoder that *make* returns. Raises OutOfMemory, InvalidArchive."""
        source = _Source(raw)
        self._name = name
        try:
            self._reads: tuple[_Source, Stream] | None = source, make(source)
        except Exception as exc:  # noqa: BLE001 - judged, whatever it is
            raise judged(exc, name) from None

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of *buffer*; 0 at the end.

        Raises InvalidArchive, OutOfMemory, and what the source raises.
        """
        assert self._reads is not None, "a closed stream is not read"
        source, stream = self._reads
        try:
            return stream.readinto(buffer)
        except Exception as exc:
            _clear_frames(exc)  # an error that is kept must not keep the decoder
            if source.has_failed and not isinstance(exc, MemoryError):
                raise
            error = judged(exc, self._name)
        finally:
            del source, stream  # this frame, too, is held by the error
        raise error  # here, where it has no context

    def close(self) -> None:
        """Free the decoder."""
        self._reads = None
