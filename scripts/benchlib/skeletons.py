"""Part of `scripts/bench lazy`: a skeleton made from a TOC, beside the system calls that none can do without.

The layer is the one of 60,000 small files that `scripts/bench extract` has. Its TOC is made here: nothing
reads the blob that it speaks of. layerfs runs as the daemon runs it, a warm worker that parses and judges the
TOC.
"""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from benchlib import inputs, machine
from benchlib.results import SUBJECT, Measurement, NotAble, Sample, Target, measure
from layerfs.errors import LayerfsError
from layerfs.extract.client import Extractor, ExtractorPool
from layerfs.extract.job import SkeletonJob
from layerfs.oci import Digest
from layerfs.oci.toc import Stretch, TocKind, TocPlace
from tests.support.tocs import listed_as, tar_member

_FLOOR: Final = "floor"
_ASKING: Final = "the process that asks"
# What the daemon does of it, in a process of its own; imports are not what is measured.
_ASK: Final = """
import sys, time
from layerfs.oci import Digest
from layerfs.oci.toc import Stretch, TocKind, TocPlace
from layerfs.store import ImageStorage
from layerfs.store.tocs import BlobPlace

def peak():  # getrusage(2) would count what was there before exec
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

store, file, digest, start, length, size = sys.argv[1:]
storage = ImageStorage(store)
place = TocPlace(TocKind.ESTARGZ, Digest.parse(digest), Stretch(int(start), int(length)))
storage.lazy.problem()
before, cpu, started = peak(), time.process_time(), time.perf_counter()
with open(file, "rb") as raw, storage.lazy.stage_toc(place.digest) as staged:
    staged.write(raw.read())
    storage.lazy.make_skeleton(staged, BlobPlace(place, str(Digest.of(b"")), int(size)))
index = time.perf_counter()
storage.lazy.indexes.load(place.digest)
now = time.perf_counter()
print(now - started, time.process_time() - cpu, peak() - before, now - index)
storage.close()
"""
_PACKED: Final = 4
"""Of so many bytes of a file one is in the blob."""


class _Scene:
    """A layer in memory as an archive, and as a TOC."""

    def __init__(self, base: Path, progress: Callable[[str], None]) -> None:
        given = inputs.get("b", "gzip", progress)
        self.archive, self.toc, self.floor = base / "layer.tar", base / "toc", base / "floor"
        self.aside = base / "aside"
        progress("making the TOC")
        with self.archive.open("wb") as out:
            subprocess.run(["gzip", "-dc", given.blob], stdout=out, check=True)
        self.place, self.blob_size = self._write_toc()
        source = Path(__file__).parents[1] / "bench_floor.c"
        subprocess.run(["gcc", "-O2", "-o", self.floor, source], check=True)

    def _write_toc(self) -> tuple[TocPlace, int]:
        at, entries = 0, []
        with tarfile.open(self.archive) as archive:
            for info in archive:
                at += 300
                data: dict[str, Any] = {}
                if info.isreg() and info.size:
                    content = archive.extractfile(info)
                    assert content is not None
                    digest = f"sha256:{hashlib.sha256(content.read()).hexdigest()}"
                    data = {"size": info.size, "digest": digest, "offset": at, "chunkDigest": digest}
                    at += info.size // _PACKED + 30
                entries.append(listed_as(info) | data)
        json = msgspec.json.encode({"version": 1, "entries": entries})
        packed = gzip.compress(tar_member("stargz.index.json", json), mtime=0)
        self.toc.write_bytes(packed)
        place = TocPlace(TocKind.ESTARGZ, Digest.of(json), Stretch(at, len(packed)))
        return place, at + len(packed) + 51

    def job(self, target: Path) -> SkeletonJob:
        """Describe the making of the skeleton in *target*."""
        return SkeletonJob(
            toc=os.fspath(self.toc), place=self.place, blob_size=self.blob_size, target=os.fspath(target)
        )


def measurements(base: Path, rounds: int, progress: Callable[[str], None]) -> Iterator[Measurement]:
    """Yield the table of skeletons; *base* is an empty directory in memory."""
    scene = _Scene(base, progress)
    for filesystem in ("tmpfs", "disk"):
        with ExtractorPool(limit=1) as pool:
            rows = [
                (SUBJECT, "a warm worker", lambda: _made(scene, filesystem, pool)),  # noqa: B023 - called here
                (_FLOOR, "bench_floor.c --stubs", lambda: _floor(scene, filesystem)),  # noqa: B023
                (_ASKING, "and a cold worker", lambda: _asked(scene, filesystem)),  # noqa: B023
            ]
            targets = {_ASKING: [Target(0.5, figure="CPU s"), Target(60, figure="MB more")]}
            if filesystem == "tmpfs":
                targets[SUBJECT] = [Target(1.5)]
            title = f"a skeleton of 60,000 entries, {filesystem}"
            yield measure(title, "s", "less", rows, rounds, progress, targets)
    for path in (scene.archive, scene.toc):
        path.unlink()


def _made(scene: _Scene, filesystem: str, pool: ExtractorPool) -> Sample:
    with machine.fresh(filesystem) as target, pool.extractor() as worker:
        _make(worker, scene, scene.aside)  # outside the clock: it may have been started for this run
        shutil.rmtree(scene.aside)
        before = machine.cpu_of(worker.pid)
        start = time.perf_counter()
        _make(worker, scene, target / "layer")
        seconds = time.perf_counter() - start
        figures = {"CPU s": machine.cpu_of(worker.pid) - before, "peak MB": machine.peak_mb_of(worker.pid)}
        return Sample(seconds, figures)


def _make(worker: Extractor, scene: _Scene, target: Path) -> None:
    target.mkdir()
    worker.start(scene.job(target))
    try:
        worker.result(lambda _: None)
    except LayerfsError as exc:
        raise NotAble(str(exc)) from exc


def _asked(scene: _Scene, filesystem: str) -> Sample:
    """Measure what the process pays that has a worker make it, and then knows which objects it names."""
    place = scene.place
    assert place.stretch is not None
    with machine.fresh(filesystem) as target:
        about = [target / "store", scene.toc, place.digest, place.stretch.start, place.stretch.length]
        argv = [sys.executable, "-c", _ASK, *map(str, [*about, scene.blob_size])]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        seconds, cpu, grown, index = map(float, done.stdout.split())
        return Sample(seconds, {"CPU s": cpu, "MB more": grown, "index s": index})


def _floor(scene: _Scene, filesystem: str) -> Sample:
    with machine.fresh(filesystem) as target:
        argv: list[str | Path] = [scene.floor, "--stubs", scene.archive, target]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        seconds, cpu = map(float, done.stdout.split())
        return Sample(seconds, {"CPU s": cpu})
