"""Several processes on one store: daemons, command lines and sweepers, as far as the store can tell."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from layerfs.oci import Digest
from layerfs.store import ImageStorage
from tests.store.helpers import leftovers
from tests.support import images
from tests.support.clients import wait_until

LAYERS = [
    images.layer(
        images.file("number", str(number).encode() * 2000),
        images.directory("directory"),
        images.hardlink("directory/same", "number"),
        images.whiteout("directory/gone"),
    )
    for number in range(20)
]
PROCESSES = 8


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    path = tmp_path / "blobs"
    path.mkdir()
    for number, layer in enumerate(LAYERS):
        (path / f"{number:02}").write_bytes(layer.blob)
    return path


def churn(stack: ExitStack, store: Path, blobs: Path, seconds: float, seed: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.store.churn", str(store), str(blobs), str(seconds), str(seed)]
    output = stack.enter_context(blobs.with_name(f"{seed}.out").open("wb"))
    process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE)
    assert process.stderr is not None
    stack.callback(process.stderr.close)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.long)])
def test_eight_processes_neither_fail_nor_leave_anything_nor_work_twice(
    store: Path, blobs: Path, seconds: float
) -> None:
    with ExitStack() as stack:
        processes = [churn(stack, store, blobs, seconds, seed) for seed in range(PROCESSES)]
        for process in processes:
            errors = process.communicate()[1].decode()
            assert process.returncode == 0, errors
            assert errors == ""
    done = Counter(
        tuple(line.split())
        for seed in range(PROCESSES)
        for line in blobs.with_name(f"{seed}.out").read_text().splitlines()
    )
    for layer in LAYERS:
        digest = str(layer.digest)
        removed, discarded = done["remove", digest], done["discard", digest]
        assert done["download", digest] <= removed + 1
        assert done["extract", digest] <= removed + discarded + 1
    assert sum(count for (what, _), count in done.items() if what == "extract") >= len(LAYERS)
    check_what_is_left(store)


def test_processes_that_are_killed_at_any_time_harm_nobody(
    store: Path, blobs: Path, tried: Callable[[int], None]
) -> None:
    choose = random.Random(0)
    with ExitStack() as stack:
        processes = [churn(stack, store, blobs, 60, seed) for seed in range(4)]
        wait_until(lambda: all(blobs.with_name(f"{seed}.out").stat().st_size for seed in range(4)))
        for seed in range(4, 12):
            time.sleep(0.3)
            victim = processes.pop(choose.randrange(len(processes)))
            assert victim.poll() is None, victim.communicate()[1].decode()
            victim.kill()
            processes.append(churn(stack, store, blobs, 60, seed))
        for process in processes:
            assert process.poll() is None, process.communicate()[1].decode()
    check_what_is_left(store)
    tried(8)


def check_what_is_left(store: Path) -> None:
    with ImageStorage(store) as storage:
        # Until the workers of killed processes are gone, they may still write into trees of their own.
        def is_swept() -> bool:
            storage.sweep(max_age=-60)
            return not leftovers(store)

        wait_until(is_swept)
        names = set(os.listdir(store / "extracted"))
        assert names == {name for digest in known(names) for name in (digest.name, f"{digest.name}.json")}
        for layer in LAYERS:
            if storage.has_layer(layer.digest):
                storage.extract_layer(layer.digest, storage.layer_tarball_path(layer.digest))
                assert storage.verify_layer(layer.digest)
        assert not any(storage.usage().uses(layer.digest) for layer in LAYERS)


def known(names: set[str]) -> set[Digest]:
    return {Digest.from_name(name.removesuffix(".json")) for name in names}
