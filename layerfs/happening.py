"""What a daemon did lately, for those who follow it: a ring of events, each a line of the log, too.

A failure is no line here: whoever answers a caller with it writes that.
"""

import logging
import threading
import time
from collections import deque
from typing import Final

from layerfs.status import Event, EventKind, Events

_KEPT: Final = 1000

log = logging.getLogger("layerfs.events")


class Happening:
    """The latest events of this process. Thread-safe."""

    def __init__(self) -> None:
        self.started = time.time()
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._count = 0
        self._adding = threading.Lock()

    def add(self, kind: EventKind, what: str, *, size: int = 0, error: str = "", message: str = "") -> None:
        """Remember an event of now."""
        with self._adding:
            self._count += 1
            event = Event(
                number=self._count, time=time.time(), kind=kind, what=what, size=size, error=error,
                message=message,
            )  # fmt: skip
            self._events.append(event)
        if kind != "failure":
            fields = {"event": kind, "what": what} | ({"size": size} if size else {})
            log.info("%s %s%s", kind, what, f", {size} bytes" if size else "", extra={"fields": fields})

    def latest(self) -> Events:
        """Return what is remembered."""
        with self._adding:
            return Events(started=self.started, events=tuple(self._events))
