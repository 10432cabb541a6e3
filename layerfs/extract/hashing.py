"""Hashing, in a thread of its own beside other work: of the blob, and of the uncompressed archive."""

import hashlib
import threading
from queue import SimpleQueue
from typing import Final

from layerfs.errors import DigestMismatch

_STOP: Final = None


def mismatch(found: str, wanted: str) -> DigestMismatch | None:
    """Return the error if a blob hashed to something else than *wanted*."""
    return None if found == wanted else DigestMismatch(f"blob: hashes to {found} (expected {wanted})")


class HashThread:
    """Hashes what is put, in order; hashlib releases the interpreter while it works.

    A buffer must not change before `wait_done` has counted it.
    """

    def __init__(self, algorithm: str) -> None:
        self.name = algorithm
        self._hash = hashlib.new(algorithm)
        self._buffers: SimpleQueue[bytes | memoryview | None] = SimpleQueue()
        self._done: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"hash-{algorithm}", daemon=True)
        self._thread.start()
        self._put = self._counted = 0

    def put(self, buffer: bytes | memoryview) -> None:
        """Hash *buffer* some time soon."""
        self._put += 1
        self._buffers.put(buffer)

    def wait_done(self, most: int) -> None:
        """Wait until at most *most* buffers are unfinished."""
        while self._put - self._counted > most:
            self._done.get()
            self._counted += 1

    def finish(self) -> str:
        """Return ``algorithm:hex`` of all that was put; call exactly once."""
        self._buffers.put(_STOP)
        self._thread.join()
        return f"{self._hash.name}:{self._hash.hexdigest()}"

    def _run(self) -> None:
        get, update, done = self._buffers.get, self._hash.update, self._done.put
        while (buffer := get()) is not _STOP:
            update(buffer)
            done(None)
