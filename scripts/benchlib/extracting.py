"""`scripts/bench extract`: one layer into one fresh directory, by layerfs and by the tools that do it today.

layerfs runs as the daemon runs it: a warm worker, both digests verified, all checks on. On disk the time
includes one syncfs for everybody, because a layer that a power cut empties is not extracted; layerfs writes
back early, as `layerfs pull` does.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from benchlib import inputs, machine
from benchlib.inputs import Compression, Input
from benchlib.results import SUBJECT, Measurement, NotAble, Run, Sample, measure
from layerfs.errors import LayerfsError
from layerfs.extract.client import Extractor, ExtractorPool
from layerfs.extract.job import ExtractJob
from layerfs.store.durability import writing_back
from tests.support import mounts

_BOTH = "blob, diff_id"
_RUNROOT = Path("/tmp", f"lfb-{os.getpid()}")  # podman takes at most 50 characters
Program = Callable[[Input, Path], list[str | Path]]

# Contender, what it verifies, and its command for an input and an empty directory.
_PEERS: list[tuple[str, str, Program]] = [
    ("GNU tar", "nothing", lambda given, target: [*_tar(given), "-xpf", given.blob, "-C", target]),
    ("bsdtar", "nothing", lambda given, target: ["bsdtar", "-xpf", given.blob, "-C", target]),
    (
        "umoci raw unpack",
        _BOTH,
        lambda given, target: [
            "umoci",
            "raw",
            "unpack",
            "--image",
            f"{given.layout}:latest",
            target / "rootfs",
        ],
    ),
    (  # it names the image for the path, which must therefore be a plain one
        "podman pull",
        _BOTH,
        lambda given, target: [*_podman(target), "pull", "-q", "oci:layout:latest"],
    ),
]


def measurements(
    chosen: Sequence[tuple[str, Compression]],
    filesystems: Sequence[str],
    rounds: int,
    progress: Callable[[str], None],
) -> Iterator[Measurement]:
    """Yield a table for each input and filesystem, then the rows that layerfs runs against itself."""
    with ExtractorPool(limit=2) as pool:
        for name, compression in chosen:
            given = inputs.get(name, compression, progress)
            for filesystem in filesystems:
                yield measure(
                    f"extract {given.describe()}, {_where(filesystem)}",
                    "s",
                    "less",
                    _contenders(given, filesystem, pool),
                    rounds,
                    progress,
                )
        yield _tiny(pool, rounds, progress)
        for name in ("a", "b"):
            if (name, "gzip") in chosen:
                yield _two_layers(pool, name, rounds, progress)


def _where(filesystem: str) -> str:
    return "tmpfs" if filesystem == "tmpfs" else "fresh ext4, syncfs included"


def _contenders(given: Input, filesystem: str, pool: ExtractorPool) -> list[tuple[str, str, Run]]:
    peers = [(name, verifies, _peer_run(program, given, filesystem)) for name, verifies, program in _PEERS]
    return [(SUBJECT, f"{_BOTH}, names, budgets", lambda: _layerfs_run(given, filesystem, pool)), *peers]


def _layerfs_run(given: Input, filesystem: str, pool: ExtractorPool) -> Sample:
    machine.warm(given.blob)
    with machine.fresh(filesystem) as target, pool.extractor() as worker:
        _warm(worker, target)
        before = machine.cpu_of(worker.pid)
        start = time.perf_counter()
        with nullcontext() if filesystem == "tmpfs" else writing_back(target):
            _extract(worker, given, target)
        seconds = time.perf_counter() - start
        figures = {"CPU s": machine.cpu_of(worker.pid) - before, "peak MB": machine.peak_mb_of(worker.pid)}
        return _with_sync(seconds, figures, filesystem, target)


def _peer_run(program: Program, given: Input, filesystem: str) -> Run:
    def run() -> Sample:
        machine.warm(given.blob)
        with machine.fresh(filesystem) as target:
            try:
                cost = machine.run(program(given, target), cwd=given.layout.parent)
                return _with_sync(cost.seconds, cost.figures(), filesystem, target)
            finally:
                mounts.clear(target / "podman")  # its overlay directory is a mount of its own
                shutil.rmtree(_RUNROOT, ignore_errors=True)

    return run


def _with_sync(seconds: float, figures: dict[str, float], filesystem: str, target: Path) -> Sample:
    if filesystem == "tmpfs":
        return Sample(seconds, figures)
    synced = machine.sync(target)
    return Sample(seconds + synced, {"syncfs s": synced, **figures})


def _extract(worker: Extractor, given: Input, target: Path) -> None:
    root = target / f"layer{time.monotonic_ns()}"
    root.mkdir()
    worker.start(_job(given, root))
    _result(worker, given)


def _warm(worker: Extractor, target: Path) -> None:
    """Let the worker do its first job outside the clock: it may have been started for this run."""
    _extract(worker, inputs.get("tiny", "gzip", lambda _: None), target)


def _result(worker: Extractor, given: Input) -> None:
    try:
        found = worker.result()
    except LayerfsError as exc:
        raise NotAble(str(exc)) from exc
    if (found.digest, found.diff_id) != (given.digest, given.diff_id):
        raise NotAble(f"wrong digests: {found.digest}, {found.diff_id}")


def _job(given: Input, root: Path) -> ExtractJob:
    return ExtractJob(
        blob=str(given.blob),
        target=str(root),
        digest=given.digest,
        size=given.size,
        media_type=given.media_type,
    )


def _tiny(pool: ExtractorPool, rounds: int, progress: Callable[[str], None]) -> Measurement:
    """Measure the fixed price of a layer: one file of one byte through a warm worker."""
    given = inputs.get("tiny", "gzip", progress)
    rows = [
        (SUBJECT, _BOTH, lambda: _layerfs_run(given, "tmpfs", pool)),
        ("GNU tar", "nothing", _peer_run(_PEERS[0][2], given, "tmpfs")),
    ]
    return measure("extract a layer of one byte, tmpfs", "s", "less", rows, rounds, progress)


def _two_layers(pool: ExtractorPool, name: str, rounds: int, progress: Callable[[str], None]) -> Measurement:
    """Measure what a second core gains: the same layer twice, at once and one after the other."""
    given = inputs.get(name, "gzip", progress)

    def together() -> Sample:
        with machine.fresh("tmpfs") as target, pool.extractor() as one, pool.extractor() as other:
            _warm(one, target)
            _warm(other, target)
            start = time.perf_counter()
            for number, worker in enumerate((one, other)):
                (target / str(number)).mkdir()
                worker.start(_job(given, target / str(number)))
            for worker in (one, other):
                _result(worker, given)
            return Sample(time.perf_counter() - start)

    def in_turn() -> Sample:
        with machine.fresh("tmpfs") as target, pool.extractor() as worker:
            _warm(worker, target)
            start = time.perf_counter()
            for _ in range(2):
                _extract(worker, given, target)
            return Sample(time.perf_counter() - start)

    rows = [(SUBJECT, "", together), ("one after the other", "", in_turn)]
    return measure(f"two layers ({name}) at once, tmpfs", "s", "less", rows, rounds, progress)


def _tar(given: Input) -> list[str | Path]:
    return ["tar", f"--{given.format}"]


def _podman(target: Path) -> list[str | Path]:
    _RUNROOT.mkdir(exist_ok=True)
    return ["podman", "--root", target / "podman", "--runroot", _RUNROOT, "--storage-driver", "overlay"]
