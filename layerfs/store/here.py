"""How much of lazy layers is here: how many of a skeleton's objects the store has, and how large they are.

Counting asks the disk once for each object, and a layer may have millions. So whoever may wait counts, and
whoever may not has the last count, which a thread renews.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec

from layerfs.errors import LayerfsError
from layerfs.oci import Digest

_FRESH_SECONDS: Final = 1.0
_SHARE: Final = 20
"""Counting, of all that is asked for, takes at most a twentieth of the time."""
_KEPT: Final = 1024
"""Layers whose counts are remembered."""

log = logging.getLogger(__name__)


class Here(msgspec.Struct, frozen=True):
    """What is here of the files of one lazy layer, equal ones counted once."""

    files: int
    bytes: int
    of_files: int
    of_bytes: int

    @property
    def lacking(self) -> int:
        """How many files are not here."""
        return self.of_files - self.files


class _Counted(msgspec.Struct, frozen=True):
    here: Here
    seconds: float
    """How long counting took."""
    not_before: float
    """When it may be counted again."""


class LastCounts:
    """The last counts of *count*, renewed by a thread when somebody asks. Thread-safe."""

    def __init__(self, count: Callable[[Digest], Here]) -> None:
        self._count = count
        self._known: dict[Digest, _Counted] = {}
        self._wanted: dict[Digest, None] = {}
        self._running = False
        self._mutex = threading.Lock()

    def get(self, toc: Digest) -> Here | None:
        """Return the last count, None if there is none yet; never waits."""
        known = self._known.get(toc)
        if known is None or time.monotonic() >= known.not_before:
            with self._mutex:
                self._wanted[toc] = None
                if not self._running:
                    self._running = True
                    threading.Thread(target=self._renew_all, name="count", daemon=True).start()
        return None if known is None else known.here

    def _renew_all(self) -> None:
        """Count what is wanted, one after another: each keeps others of this process from running."""
        while True:
            with self._mutex:
                toc = next(iter(self._wanted), None)
                if toc is None:
                    self._running = False
                    return
            self._renew(toc)
            with self._mutex:
                del self._wanted[toc]

    def _renew(self, toc: Digest) -> None:
        began = time.monotonic()
        try:
            here = self._count(toc)
        except LayerfsError as exc:  # removed meanwhile
            log.debug("%s: not counted: %s", toc, exc)
        else:
            now = time.monotonic()
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known.pop(toc, None)
            spent = now - began + sum(one.seconds for one in self._known.values())
            self._known[toc] = _Counted(here, now - began, now + max(_FRESH_SECONDS, _SHARE * spent))
