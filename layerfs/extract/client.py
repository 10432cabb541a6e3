"""The daemon's side of the workers: one handle for each process, and a pool of them.

Moves messages; blocks, so it belongs into threads.

A worker has nothing that it could leak: no credentials in its environment, no descriptors but the two pipes
and standard error, a session of its own. It ends when its standard input does, however the daemon ends.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Self

import msgspec

from layerfs import errors
from layerfs.errors import LayerfsError, WorkerDied
from layerfs.extract.job import Abort, Done, Ended, Failed, Grown, Job, Listed, Unpacked
from layerfs.layer.record import Extraction
from layerfs.processes import frames, spawning

IDLE_EXIT: Final = 60.0
"""Seconds that a worker waits for another job."""
WORKERS_MAX: Final = 8
_EXIT_GRACE: Final = 5.0

Keep = Callable[[bytes], object]
"""Takes the next bytes of the tables of `layerfs.layer.tables`."""

_ANSWER: Final = msgspec.json.Decoder(Listed | Done | Unpacked | Failed)


def drop(_: bytes) -> None:
    """Keep nothing."""


class Extractor:
    """One worker process, for one job at a time.

    `result` may block in one thread while others call `grown`, `ended`, `abort` and `close`.
    """

    def __init__(self) -> None:
        import subprocess  # not before there is something to extract

        self._process = subprocess.Popen(
            spawning.command("layerfs.extract.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env=spawning.bare_environment(),
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to_worker, self._from_worker = self._process.stdin, self._process.stdout
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._closing = threading.Lock()
        self._may_end = False  # it was told to, or has said that it will
        self.warnings: tuple[str, ...] = ()
        """What the writer remarked in the last job that was answered."""

    @property
    def pid(self) -> int:
        """Process id of the worker; its writer is its only child."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process can take another job."""
        return self._process.poll() is None and not self._to_worker.closed

    @property
    def has_died(self) -> bool:
        """Whether the process has ended by itself."""
        return not self._may_end and self._process.poll() is not None

    def start(self, job: Job) -> None:
        """Begin a job; the answer to the one before must have been taken."""
        self.warnings = ()
        self._send(job)

    def grown(self, size: int) -> None:
        """Say that *size* bytes of the growing blob may be read."""
        self._send(Grown(size))

    def ended(self, size: int) -> None:
        """Say that the growing blob is complete with *size* bytes."""
        self._send(Ended(size))

    def abort(self) -> None:
        """Say that the growing blob will never be complete; `result` then raises."""
        self._send(Abort())

    def result(self, keep: Keep = drop) -> Extraction:
        """Wait for the end of the job; *keep* gets the record's tables, piece by piece.

        Raises the class of `layerfs.errors` that the worker names, or WorkerDied, and what *keep* raises.
        """
        answer = self._last_answer(keep)
        assert isinstance(answer, Done), "who asks for bytes calls unpacked"
        return answer.extraction

    def unpacked(self, keep: Keep) -> None:
        """Wait for the end of an `UnpackJob`; *keep* gets the bytes of the file. Raises as `result` does."""
        self._last_answer(keep)

    def _last_answer(self, keep: Keep) -> Done | Unpacked:
        while isinstance(answer := self._answer(), Listed):
            try:
                keep(answer.piece)
            except BaseException:
                self.close()  # what else it says belongs to this job
                raise
        self.warnings = answer.warnings
        return answer

    def close(self) -> None:
        """End the process and its writer, whatever they do, and wait for both: the tree may be removed then.

        May be called more than once.
        """
        with self._closing:
            if self._from_worker.closed:
                return
            self._may_end = not self.has_died
            # Each of the two holds the pipe: while it is open, their process group exists and has its number.
            if not self._hung_up(0):
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                self._hung_up(_EXIT_GRACE)
            self._process.wait()
            with self._sending:
                self._to_worker.close()
            with self._receiving:
                self._from_worker.close()

    def _answer(self) -> Listed | Done | Unpacked:
        with self._receiving:
            closed = self._from_worker.closed
            body = None if closed else frames.receive(self._from_worker.fileno())
        if body is None:
            how = spawning.how_it_ends(self._process, _EXIT_GRACE)
            raise WorkerDied(f"extractor {self.pid}: {how} (expected an answer)")
        try:
            answer: Listed | Done | Unpacked | Failed = _ANSWER.decode(body)
        except msgspec.DecodeError as exc:
            self.close()
            raise WorkerDied(
                f"extractor {self.pid}: {exc} (expected an answer; after an upgrade of layerfs, mount again)"
            ) from exc
        if not isinstance(answer, Listed) and answer.last:
            self._may_end = True
            self.close()
        if isinstance(answer, Failed):
            self.warnings = answer.warnings
            raise errors.named(answer.error, answer.message)
        return answer

    def _hung_up(self, seconds: float) -> bool:
        """Wait until nobody holds the other end of the answers' pipe; say whether that came true."""
        poll = select.poll()
        poll.register(self._from_worker.fileno(), 0)
        return bool(poll.poll(seconds * 1000))

    def _send(self, message: Job | Grown | Ended | Abort) -> None:
        body = msgspec.json.encode(message)
        # A worker that died says so in `result`, which is where it is waited for.
        with self._sending, suppress(OSError, ValueError):
            frames.send(self._to_worker.fileno(), body)


class ExtractorPool:
    """Workers on demand: started when needed, kept warm for a while, replaced when dead.

    With *idle_exit* None they are kept until `close`, and the pool has no thread.
    """

    def __init__(self, limit: int | None = None, *, idle_exit: float | None = IDLE_EXIT) -> None:
        self.limit: Final = limit or min(os.cpu_count() or 1, WORKERS_MAX)
        """How many there may be."""
        self._idle_exit = idle_exit
        self.on_death: Callable[[], None] = lambda: None  # is called for each that has died, in any thread
        self._changed = threading.Condition()
        self._idle: list[tuple[float, Extractor]] = []
        self._busy = 0
        self._closed = False
        self._reaper: threading.Thread | None = None

    def warm(self) -> None:
        """Start a worker if none is idle and another one may be busy: who needs it then has it at once."""
        with self._changed:
            if self._closed or self._idle or self._busy >= self.limit:
                return
            self._busy += 1
        self.release(self._started())

    def acquire(self) -> Extractor:
        """Return a worker for one job, waiting for one while all are busy.

        Raises WorkerDied after `close`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._busy < self.limit)
            if self._closed:
                raise WorkerDied("no extractor: the pool is closed")
            self._busy += 1
            while self._idle:
                _, extractor = self._idle.pop()
                if extractor.is_alive:
                    return extractor
                self._bury(extractor)
        return self._started()

    def release(self, extractor: Extractor) -> None:
        """Take a worker back once its job is answered; a dead or closed one is not used again."""
        with self._changed:
            keep = extractor.is_alive and not self._closed
            if keep:
                self._idle.append((time.monotonic(), extractor))
                self._start_reaper()
        if not keep:
            self._bury(extractor)
        self._leave()

    @contextmanager
    def extractor(self) -> Iterator[Extractor]:
        """Lend a worker; one whose job was left without an answer is ended."""
        extractor = self.acquire()
        try:
            yield extractor
        except LayerfsError:
            raise
        except BaseException:
            extractor.close()
            raise
        finally:
            self.release(extractor)

    def close(self) -> None:
        """End all idle workers, and the busy ones when they are released."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for _, extractor in idle:
            extractor.close()
        if self._reaper is not None:
            self._reaper.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> Extractor:
        """Start a worker, which counts as busy already."""
        try:
            return Extractor()
        except BaseException:
            self._leave()
            raise

    def _bury(self, extractor: Extractor) -> None:
        if extractor.has_died:
            self.on_death()
        extractor.close()

    def _leave(self) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def _start_reaper(self) -> None:
        if self._reaper is None and self._idle_exit is not None:
            given = (self._idle_exit,)
            self._reaper = threading.Thread(None, self._reap, "extractor-reaper", given, daemon=True)
            self._reaper.start()

    def _reap(self, idle_exit: float) -> None:
        """End workers that were idle for too long; those used last are used first."""
        while True:
            with self._changed:
                if self._closed:
                    return
                now = time.monotonic()
                tired = [pair for pair in self._idle if now - pair[0] >= idle_exit]
                self._idle = [pair for pair in self._idle if pair not in tired]
                if not tired:
                    oldest = min((since for since, _ in self._idle), default=None)
                    self._changed.wait(None if oldest is None else oldest + idle_exit - now)
            for _, extractor in tired:
                self._bury(extractor)
