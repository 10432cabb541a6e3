"""The worker process, ``python -m layerfs.extract.worker``: jobs on stdin, answers on stdout.

Moves messages (`layerfs.extract.job`) and moves nothing else: `pipeline` extracts, in a thread, so that a
message about the running job is heard at once. Ends when standard input does, in the middle of whatever it
does: that is how it learns that the daemon is gone. Imports only what an extraction
needs.
"""

import gc
import logging
import os
import resource
import signal
import sys
import threading
from typing import Final

import msgspec

import layerfs.compression.gzip  # noqa: F401 - nearly every layer needs it, and the first one waits
from layerfs.errors import OutOfMemory
from layerfs.extract import pipeline, skeletons, unpacking, writer
from layerfs.extract.job import Abort, Done, Ended, ExtractJob, Failed, Grown, Job, SkeletonJob, Unpacked
from layerfs.extract.ring import Feeder, PartnerDied, Ring
from layerfs.extract.tail import Growth
from layerfs.foreign import OneLine
from layerfs.host import confine
from layerfs.host.priority import give_way, limit_memory
from layerfs.processes import frames

log = logging.getLogger(__name__)

KEPT_MAX: Final = 96 << 20
"""Bytes that a worker may hold between two jobs; one with more (a fragmented heap, a library's leak) ends."""
_IN, _OUT = 0, 1

_MESSAGE: Final = msgspec.json.Decoder(Job | Grown | Ended | Abort)


class Worker:
    """Reads messages in the main thread, runs one job at a time in another."""

    def __init__(self, feeder: Feeder) -> None:
        self._feeder = feeder
        self._growth: Growth | None = None

    def serve(self) -> None:
        """Obey messages until there are no more."""
        while (body := frames.receive(_IN)) is not None:
            message = _MESSAGE.decode(body)
            if isinstance(message, Job):
                self._start(message)
            elif self._growth is not None:  # else the job that it is about has been answered
                if isinstance(message, Abort):
                    self._growth.abort()
                else:
                    self._growth.grow(message.size, complete=isinstance(message, Ended))

    def _start(self, job: Job) -> None:
        complete = job.complete if isinstance(job, ExtractJob) else True
        self._growth = growth = Growth(complete=complete, hopeless=self._feeder.listen)
        try:
            threading.Thread(target=self._run, args=(job, growth), name="job", daemon=True).start()
        except (MemoryError, RuntimeError) as exc:  # the second says that there can be no more threads
            _answer(_failed(exc))

    def _run(self, job: Job, growth: Growth) -> None:
        try:
            answer: Done | Unpacked | Failed
            if isinstance(job, ExtractJob):
                answer = pipeline.run(job, growth, self._feeder, _answer)
            elif isinstance(job, SkeletonJob):
                answer = skeletons.run(job, self._feeder, _answer)
            else:
                answer = unpacking.run(job, _answer)
            if held() > KEPT_MAX:
                gc.collect()
                answer = msgspec.structs.replace(answer, last=held() > KEPT_MAX)
            _answer(msgspec.json.encode(answer))
            gc.collect()
        except (PartnerDied, BrokenPipeError):
            os._exit(1)
        except MemoryError as exc:
            _answer(_failed(exc))
            os._exit(1)
        except BaseException:
            log.exception("the job for %s failed in a way nobody thought of", job.digest)
            os._exit(1)  # the client sees it, and starts another


def _failed(exc: Exception) -> bytes:
    what = f"the extractor cannot work on its job: {str(exc) or 'no memory'} (the image is not at fault)"
    return msgspec.json.encode(Failed(OutOfMemory.__name__, what, last=True))


def held() -> int:
    """Return the bytes of memory that are this process's own, the ring and files not counted."""
    with open("/proc/self/statm", "rb") as statm:
        _, resident, shared, *_ = statm.read().split()
    return (int(resident) - int(shared)) * resource.getpagesize()


def _answer(body: bytes) -> None:
    frames.send(_OUT, body)


def main() -> None:
    """Run as a worker process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("layerfs-extract: %(message)s"))
    logging.basicConfig(handlers=[handler])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    give_way()
    limit_memory()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()
    gc.freeze()  # what was imported stays: collecting between two jobs need not look at it
    ring = Ring.make()
    if os.fork() == 0:  # before any thread: a fork of a process with threads may hang
        _be_the_writer(ring)
    os.close(ring.words_in)
    os.close(ring.answers_out)
    confine_inflater()
    try:
        Worker(Feeder(ring)).serve()
    except BaseException:
        log.exception("the worker failed in a way nobody thought of")
        os._exit(1)  # the end of the interpreter would wait for what the job holds
    os._exit(0)  # a job may be running: what it writes is for nobody


def confine_inflater() -> None:
    """Give up what a process does not need that reads one file and feeds decoders written in C.

    It may be the first to meet a fault in one of them: then it can write to the ring and to its pipes, and to
    nothing else.
    """
    confine.keep_capabilities([confine.CAP_DAC_READ_SEARCH])
    confine.write_only_below()
    confine.refuse_calls((*confine.SYSTEM, *confine.NETWORK, *confine.PROGRAMS, *confine.METADATA))


def _be_the_writer(ring: Ring) -> None:
    """Serve as the forked writer, and never return."""
    status = 1
    try:
        # Standard output stays open: when it closes at the other end, nobody writes to the tree any more.
        for fd in (_IN, ring.words_out, ring.answers_in):
            os.close(fd)
        writer.serve(ring)
        status = 0
    except BaseException:
        log.exception("the writer failed in a way nobody thought of")
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
