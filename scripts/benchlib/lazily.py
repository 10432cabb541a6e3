"""`scripts/bench lazy`: an image of five layers with TOCs, looked at before it is here, and fetched whole.

Behind a line of so many MB/s and 20 ms a request. What is measured is what a user waits for: the first file,
a listing of everything, a twentieth of the files, all of them, and the first process of a container.
"""

import contextlib
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchlib import machine, skeletons
from benchlib.fetched import Throttle
from benchlib.results import Measurement, Sample, Target, measure_rows
from tests.support import daemon, images, mounts
from tests.support.registry import Registry
from tests.support.tocs import estargz

_LAYERS: Final = 5
_FILE: Final = 64 << 10
"""Bytes of most files; one in a hundred has forty times as many."""
_DELAY: Final = 0.02
_MEMORY: Final = Path("/dev/shm")
_ROOT: Final = "rootfs"
_MB: Final = 1e6
_PARTS: Final = ("first file", "ls -lR", "5 % of the files", "all files", "first process of a container")


def measurements(
    rates: Sequence[float], megabytes: int, rounds: int, progress: Callable[[str], None]
) -> Iterator[Measurement]:
    """Yield the tables of skeletons, and one for each of *rates*, in MB/s."""
    with tempfile.TemporaryDirectory(prefix="layerfs-bench.", dir=_MEMORY) as name:
        base = Path(name)
        yield from skeletons.measurements(base, rounds, progress)
        if not rates:
            return
        with Registry(base / "registry") as registry:
            progress("making the image")
            files = _push(registry, megabytes)
            for rate in rates:
                scene = _Scene(base, registry, rate, files)
                targets = {"first file, lazy": [Target(500)]} if rate == 25 else {}
                line = f"{rate:g} MB/s, {_DELAY * 1000:g} ms a request"
                title = f"an image of {megabytes} MB in {_LAYERS} layers at {line}"
                yield measure_rows(title, "ms", "less", scene.all, rounds, progress, targets)


def _push(registry: Registry, megabytes: int) -> list[str]:
    """Push the image; return the names of its files."""
    noise = random.Random(22)
    block = noise.randbytes(1 << 20)
    layers: list[images.BuiltLayer] = []
    names: list[str] = []
    for number in range(_LAYERS):
        entries, left = [images.directory(f"d{number}")], megabytes * 1_000_000 // _LAYERS
        while left > 0:
            size = min(_FILE * (40 if noise.random() < 0.01 else 1), left)
            start = noise.randrange(len(block) // 2)
            content = (block[start : start + size // 2 + 1] * 2)[: size - 8] + noise.randbytes(8)
            names.append(f"d{number}/f{len(names)}")
            entries.append(images.file(names[-1], content))
            left -= size
        layers.append(estargz(images.tar(entries), chunk=1 << 20).built)
    registry.push("bench/lazy", "latest", images.image(*layers))
    return names


class _Scene:
    """The image behind one line, and a fresh store for each thing that is measured."""

    def __init__(self, base: Path, registry: Registry, rate: float, files: list[str]) -> None:
        self._base = base
        self._registry = registry
        self._rate = rate * _MB
        self._files = files
        self._some = random.Random(5).sample(files, max(1, len(files) // 20))

    def all(self) -> Mapping[str, Sample]:
        """Measure each part, lazily and whole."""
        acts = (
            lambda image: (image / _ROOT / self._files[0]).read_bytes(),
            lambda image: subprocess.run(
                ["ls", "-lR", f"{image / _ROOT}/"], stdout=subprocess.DEVNULL, check=True
            ),
            lambda image: [(image / _ROOT / name).read_bytes() for name in self._some],
            lambda image: [(image / _ROOT / name).read_bytes() for name in self._files],
        )
        found = {}
        for part, act in zip(_PARTS, acts, strict=False):
            for how in ("auto", "never"):
                found[f"{part}, {_called(how)}"] = self._looked(how, act)
        for how in ("always", "never"):
            found[f"{_PARTS[-1]}, {_called(how)}"] = self._started(how)
        return found

    def _looked(self, how: str, act: Callable[[Path], object]) -> Sample:
        with self._mounted(how) as (running, throttle):
            image = running.images / throttle.host / "bench/lazy:latest"
            return self._sample(throttle, lambda: act(image))

    def _started(self, how: str) -> Sample:
        with self._mounted("auto") as (running, throttle):
            target = running.mountpoint.with_name("root")
            target.mkdir()
            first = target / self._files[0]
            name = f"{throttle.host}/bench/lazy:latest"
            argv = [
                *daemon.LAYERFS,
                "overlay",
                "--lazy",
                how,
                "--store",
                str(running.store),
                name,
                str(target),
            ]

            def start() -> None:
                machine.run(argv)
                subprocess.run(["cat", first], stdout=subprocess.DEVNULL, check=True)

            try:
                return self._sample(throttle, start)
            finally:
                mounts.clear(target)

    def _sample(self, throttle: Throttle, act: Callable[[], object]) -> Sample:
        mark, passed = self._registry.mark(), throttle.passed
        started = time.perf_counter()
        act()
        seconds = time.perf_counter() - started
        figures = {"MB": (throttle.passed - passed) / _MB, "requests": len(self._registry.requests(mark))}
        return Sample(seconds * 1000, figures)

    @contextlib.contextmanager
    def _mounted(self, how: str) -> Iterator[tuple[daemon.Daemon, Throttle]]:
        """Mount an empty store."""
        place = self._base / "mounts" / str(time.monotonic_ns())
        place.mkdir(parents=True)
        (place / "layerfs.toml").write_text(f'lazy = "{how}"\n')
        environment = {"LAYERFS_CONFIG": os.fspath(place / "layerfs.toml")}
        try:
            with (
                Throttle(self._registry.port, self._rate, _DELAY) as throttle,
                daemon.running(place / "store", place / "mnt", environment=environment) as running,
            ):
                yield running, throttle
        finally:
            machine.run(["rm", "-rf", place])


def _called(how: str) -> str:
    return "whole" if how == "never" else "lazy"
