"""`scripts/bench store`: what opening a store costs, however much is in it."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchlib.results import Measurement, Sample, measure

IMAGES, LAYERS = 5_000, 50_000
_MEMORY = Path("/dev/shm")

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
    with tempfile.TemporaryDirectory(prefix="layerfs-bench.", dir=_MEMORY) as base:
        full, empty = Path(base, "full"), Path(base, "empty")
        for store in (full, empty):
            _open(store)
        progress("making a store of 5,000 images and 50,000 layers")
        _fill(full)
        yield measure(
            "open a store",
            "s",
            "less",
            [
                ("layerfs", f"{IMAGES} images, {LAYERS} layers; target 0.2 s", lambda: _open(full)),
                ("an empty one", "the same, with nothing in it", lambda: _open(empty)),
            ],
            rounds,
            progress,
        )


def _open(store: Path) -> Sample:
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, str(store)], capture_output=True, text=True, check=True
    )
    return Sample(float(done.stdout))


def _fill(store: Path) -> None:
    for number in range(IMAGES):
        name = f"sha256-{number:064x}"
        repository = store / "refs" / "registry.example" / f"team{number % 50}"
        repository.mkdir(parents=True, exist_ok=True)
        ref = {"digest": name.replace("-", ":"), "resolved_at": time.strftime("%Y-%m-%dT%H:%M:%SZ")}
        (repository / f"image{number}:latest").write_text(json.dumps(ref), encoding="utf-8")
        for kind in ("manifests", "configs"):
            (store / kind / f"{name}.json").write_text("{}", encoding="utf-8")
    for number in range(LAYERS):
        name = f"sha256-{number:064x}"
        (store / "extracted" / name).mkdir()
        (store / "extracted" / f"{name}.json").write_text("{}", encoding="utf-8")
        (store / "layers" / f"{name}.tar.gz").touch()
