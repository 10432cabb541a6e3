"""`scripts/bench store`: what opening a store costs, and mounting one, however much is in it."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchlib import machine
from benchlib.results import Measurement, NotAble, Sample, Target, measure
from tests.support import daemon, mounts

_OPENED = (5_000, 50_000)
_MOUNTED = (1_000, 10_000)
"""Images and layers of the two stores, as the issues name them."""

_MEMORY = Path("/dev/shm")
_FIRST_ANSWER_SECONDS = 20.0

# In a process of its own, as a command line opens it; imports are not what is measured.
_OPEN = """
import sys, time
from layerfs.store import ImageStorage
started = time.perf_counter()
ImageStorage(sys.argv[1])
print(time.perf_counter() - started)
"""


def measurements(rounds: int, progress: Callable[[str], None]) -> Iterator[Measurement]:
    """Yield the tables."""
    with tempfile.TemporaryDirectory(prefix="layerfs-bench.", dir=_MEMORY) as name:
        base = Path(name)
        full, empty, mounted = base / "full", base / "empty", base / "mounted"
        progress("making stores with much in them")
        for store, size in ((full, _OPENED), (empty, (0, 0)), (mounted, _MOUNTED)):
            _open(store)
            _fill(store, *size)
        yield measure(
            f"open a store: {_described(_OPENED)}",
            "s",
            "less",
            [("ImageStorage(...)", "", lambda: _open(full)), ("an empty one", "", lambda: _open(empty))],
            rounds,
            progress,
            targets={"ImageStorage(...)": [Target(0.2)]},
        )
        commands = [
            ("mount, then list images/", lambda: _first_answer(mounted, base)),
            ("the same, empty store", lambda: _first_answer(empty, base)),
            ("layerfs images", lambda: _command("images", "--store", str(empty))),
            ("layerfs --help", lambda: _command("--help")),
        ]
        yield measure(
            f"from exec to the first answer: {_described(_MOUNTED)}",
            "ms",
            "less",
            [(name, "", run) for name, run in commands],
            rounds,
            progress,
            targets={commands[0][0]: [Target(400), Target(80, figure="RSS MB")]},
        )


def _described(size: tuple[int, int]) -> str:
    return f"{size[0]:,} images, {size[1]:,} layers"


def _open(store: Path) -> Sample:
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, str(store)], capture_output=True, text=True, check=True
    )
    return Sample(float(done.stdout))


def _first_answer(store: Path, base: Path) -> Sample:
    """Mount, and list the registries as soon as there is something to list."""
    mountpoint = base / "mountpoint"
    mountpoint.mkdir(exist_ok=True)
    argv = [*daemon.LAYERFS, "mount", "--foreground", "--store", str(store), str(mountpoint)]
    started = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            answer = _wait_for(mountpoint / "images", started + _FIRST_ANSWER_SECONDS)
            milliseconds = (time.perf_counter() - started) * 1000
            if bool(answer) != any((store / "refs").iterdir()):
                raise NotAble(f"another answer than the store: {answer}")
            return Sample(milliseconds, {"RSS MB": machine.resident_mb_of(process.pid)})
        finally:
            process.terminate()
            process.wait()
            mounts.clear(mountpoint)


def _wait_for(directory: Path, deadline: float) -> list[str]:
    while time.perf_counter() < deadline:
        with contextlib.suppress(FileNotFoundError):
            return os.listdir(directory)
        time.sleep(0.001)
    raise NotAble(f"no mount within {_FIRST_ANSWER_SECONDS:g} s")


def _command(*arguments: str) -> Sample:
    cost = machine.run([*daemon.LAYERFS, *arguments])
    return Sample(cost.seconds * 1000)


def _fill(store: Path, images: int, layers: int) -> None:
    for number in range(images):
        name = f"sha256-{number:064x}"
        repository = store / "refs" / "registry.example" / f"team{number % 50}"
        repository.mkdir(parents=True, exist_ok=True)
        ref = {"digest": name.replace("-", ":"), "resolved_at": time.strftime("%Y-%m-%dT%H:%M:%SZ")}
        (repository / f"image{number}:latest").write_text(json.dumps(ref), encoding="utf-8")
        for kind in ("manifests", "configs"):
            (store / kind / f"{name}.json").write_text("{}", encoding="utf-8")
    for number in range(layers):
        name = f"sha256-{number:064x}"
        (store / "extracted" / name).mkdir()
        (store / "extracted" / f"{name}.json").write_text("{}", encoding="utf-8")
        (store / "layers" / f"{name}.tar.gz").touch()
