"""How far the work on a blob has come, and what went wrong lately. Values for watchers; no I/O.

One task advances a `Progress`; extraction follows it, `status.json` and progress bars look at it.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import trio

from layerfs.errors import Denied, LayerfsError, NoRanges
from layerfs.happening import Happening
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.registry.traffic import HOST_KINDS, Traffic
from layerfs.status import Failure, Fetching, LayerCount, LayerLevel, LayerResult, Phase, Underway, Worker

_KEPT_FAILURES = 32
_KEPT_FINISHED = 4096
"""More than whoever looks ten times a second can miss."""


class Progress:
    """The state of the work on one blob; one writer, any number of watchers."""

    def __init__(self, repository: Repository, digest: Digest, size: int) -> None:
        self.repository = repository
        self.digest = digest
        self.size = size
        self.received = 0
        """Bytes in the staged file that may be read."""
        self.phase: Phase = "queued"
        self.started = time.time()
        self.ended: Literal["complete", "aborted"] | None = None
        """How the download ended; None while it runs."""
        self.restarted = False
        """Whether the bytes of an earlier attempt were wrong."""
        self.pieced = False
        """Whether the bytes came in several responses: any of them may be why the digest is wrong."""
        self._changed = trio.Event()

    @property
    def source(self) -> str:
        """Where the bytes come from: the registry."""
        return self.repository.registry

    @property
    def is_whole(self) -> bool:
        """Whether all bytes are there."""
        return self.ended == "complete"

    def underway(self) -> Underway:
        """Return it as a value."""
        return Underway(
            repository=str(self.repository),
            digest=str(self.digest),
            phase=self.phase,
            received=self.received,
            size=self.size,
            since=self.started,
        )

    def begin(self, received: int) -> None:
        """Go on behind *received* bytes of an earlier attempt."""
        self.pieced = received > 0
        self.advance(received)

    def restart(self) -> None:
        """Begin again at the first byte: the bytes so far were wrong."""
        self.received = 0
        self.ended = None
        self.pieced = False
        self.restarted = True

    def advance(self, received: int) -> None:
        """Let watchers see that the staged file holds *received* bytes."""
        self.received = received
        self._notify()

    def complete(self, size: int) -> None:
        """End the download: the staged file holds all *size* bytes, and waits for whoever takes them."""
        self.phase = "queued"
        self.received = size
        self.ended = "complete"
        self._notify()

    def abort(self) -> None:
        """End the download without the rest of the bytes. Does nothing once it is complete."""
        if self.ended is None:
            self.ended = "aborted"
            self._notify()

    async def wait_beyond(self, received: int) -> None:
        """Wait until more than *received* bytes are there, or the download has ended."""
        while self.received <= received and self.ended is None:
            await self._changed.wait()

    async def wait_ended(self) -> None:
        """Wait until the download has ended, either way."""
        while self.ended is None:
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class Journal:
    """What is under way and what failed lately."""

    def __init__(self) -> None:
        self.active: list[Progress] = []
        self.finished: deque[Digest] = deque(maxlen=_KEPT_FINISHED)
        """The blobs whose work ended well lately, the oldest first."""
        self.failures: deque[Failure] = deque(maxlen=_KEPT_FAILURES)
        self.happening = Happening()
        self.fetched = self._fetched_bytes = 0
        """How many blobs were fetched, and their bytes."""
        self._failed: Counter[str] = Counter()
        """Failures by the name of their class."""
        self.traffic = Traffic()
        """What came over the network for a daemon."""
        self.rung = 0
        """As `layerfs.status.Fetching` has it."""
        self._layers: Counter[tuple[LayerLevel, LayerResult]] = Counter()
        self._partly: set[tuple[Digest, LayerResult]] = set()
        self._deaths: Counter[Worker] = Counter()
        self._dying = threading.Lock()

    @contextmanager
    def making(self, level: LayerLevel, layer: Digest, *refusals: type[LayerfsError]) -> Iterator[None]:
        """Count what comes of the block, which makes a layer or a file of one; *refusals* are no failures."""
        try:
            yield
        except LayerfsError as exc:
            if level != "whole":
                refusals = (*refusals, NoRanges, Denied)
            self._came_to(level, layer, "refused" if isinstance(exc, refusals) else "failed")
            raise
        self._came_to(level, layer, "done")

    def _came_to(self, level: LayerLevel, layer: Digest, result: LayerResult) -> None:
        if level == "partly":  # of all its files the first one counts
            if (layer, result) in self._partly:
                return
            self._partly.add((layer, result))
        self._layers[level, result] += 1

    def died(self, worker: Worker) -> None:
        """Count a process that ended by itself. From any thread."""
        with self._dying:
            self._deaths[worker] += 1

    def of(self, digest: Digest) -> Progress | None:
        """Return the work on *digest* that is under way, for whichever image."""
        return next((progress for progress in self.active if progress.digest == digest), None)

    @contextmanager
    def watching(self, repository: Repository, descriptor: Descriptor) -> Iterator[Progress]:
        """Show the work on a blob while the block runs, its failure afterwards."""
        progress = Progress(repository, descriptor.digest, descriptor.size)
        self.active.append(progress)
        try:
            yield progress
            progress.phase = "done"
            self.fetched += 1
            self._fetched_bytes += descriptor.size
            self.finished.append(descriptor.digest)
            self.happening.add("fetch", f"{repository}@{descriptor.digest}", size=descriptor.size)
        except LayerfsError as exc:
            progress.phase = "failed"
            self.failed(f"{repository}@{descriptor.digest}", exc)
            raise
        finally:
            self.active.remove(progress)

    def failed(self, what: str, error: LayerfsError) -> None:
        """Remember a failure; old ones fall out."""
        self._failed[type(error).__name__] += 1
        self.happening.add("failure", what, error=type(error).__name__, message=str(error))
        self.failures.append(
            Failure(time=time.time(), what=what, error=type(error).__name__, message=str(error))
        )

    def statistics(self, waiting: int) -> Fetching:
        """Return what is known now, of a fetcher with *waiting* callers."""
        return Fetching(
            waiting=waiting,
            fetching=tuple(progress.underway() for progress in self.active),
            errors=tuple(self.failures),
            fetched=self.fetched,
            fetched_bytes=self._fetched_bytes,
            failed=self._failed.total(),
            failures=dict(self._failed),
            received={kind: self.traffic.received.get(kind, 0) for kind in HOST_KINDS},
            fallbacks=self.traffic.fallbacks,
            layers=tuple(
                LayerCount(level=level, result=result, count=count)
                for (level, result), count in sorted(self._layers.items())
            ),
            rung=self.rung,
            deaths=dict(self._deaths.items()),
        )
