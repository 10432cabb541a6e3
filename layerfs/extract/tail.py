"""A blob that may still grow, read once from the start: its bytes on their way to the decompressor.

Moves bytes; judges their number and, with the hasher it feeds, their digest. Must know no compression.
"""

import os
import threading
from collections.abc import Callable
from typing import Final

from layerfs.compression import CHUNK
from layerfs.errors import GivenUp, NobodyReads, SizeMismatch, StoreError
from layerfs.extract.hashing import HashThread

_UNHASHED_MAX: Final = 16
_PATIENCE: Final = 0.1


class Growth:
    """How far a blob may be read, told by one thread and awaited by another.

    While it waits it asks now and then whether that is *hopeless*, because nobody wants the bytes any more.
    """

    def __init__(self, *, complete: bool, hopeless: Callable[[], bool]) -> None:
        self._hopeless = hopeless
        self._changed = threading.Condition()
        self._size = 0
        self._complete = complete
        self._aborted = False

    def grow(self, size: int, *, complete: bool = False) -> None:
        """Let *size* bytes be read; no more will come if *complete*."""
        with self._changed:
            self._size = max(self._size, size)
            self._complete |= complete
            self._changed.notify_all()

    def abort(self) -> None:
        """End all waiting with GivenUp."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()

    def wait_beyond(self, offset: int) -> int | None:
        """Wait until more than *offset* bytes may be read; return how many, None for all to the end."""
        if self._complete and not self._aborted:
            return None
        with self._changed:
            while not self._changed.wait_for(lambda: self._moved(offset), _PATIENCE):
                if self._hopeless():
                    raise NobodyReads("aborted: the archive is refused")
            if self._aborted:
                raise GivenUp("aborted: the blob will not be completed")
            return None if self._complete else self._size

    def _moved(self, offset: int) -> bool:
        return self._aborted or self._complete or self._size > offset


class Tail:
    """The blob as a raw stream that waits for what is not there yet and gives each byte to a hasher."""

    def __init__(self, path: str, expected: int, growth: Growth, hasher: HashThread) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise StoreError(f"{path}: {exc.strerror} (expected the blob)") from exc
        self._expected = expected
        self._growth = growth
        self._hasher = hasher
        self.offset = 0
        """Bytes read so far."""

    def read(self, size: int = CHUNK) -> bytes:
        """Return up to *size* of the next bytes; nothing at the end.

        Raises SizeMismatch for one byte more than expected, GivenUp, StoreError.
        """
        allowed = self._growth.wait_beyond(self.offset)
        try:
            data = os.read(self._fd, size if allowed is None else min(size, allowed - self.offset))
        except OSError as exc:
            raise StoreError(f"reading the blob: {exc.strerror}") from exc
        self.offset += len(data)
        if 0 <= self._expected < self.offset:
            raise SizeMismatch(f"blob: more than {self._expected} bytes")
        if data:
            self._hasher.put(data)
            self._hasher.wait_done(_UNHASHED_MAX)
        elif allowed is not None:
            raise StoreError(f"blob: ends after {self.offset} bytes (expected {allowed}, as was announced)")
        return data

    def drain(self) -> None:
        """Read to the end, for the hasher's sake."""
        while self.read():
            pass

    def check_size(self) -> None:
        """Raise SizeMismatch if the blob ended too early."""
        if self.offset < self._expected:
            raise SizeMismatch(f"blob: {self.offset} bytes (expected {self._expected})")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
