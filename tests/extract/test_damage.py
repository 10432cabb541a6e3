"""Damaged archives in a real worker: extracted or refused; never a dead worker, never the disk's fault."""

import itertools
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from layerfs.errors import InvalidLayer
from layerfs.layer.budgets import Budgets
from tests.extract.extracting import Extract
from tests.layer.damage import Mutator
from tests.support import canary

_MINUTES = 5
_BUDGETS = Budgets(max_layer_bytes=1 << 27, max_pax_bytes=1 << 16)


def _fire(extract: Extract, seed: int, count: int) -> None:
    mutator = Mutator(seed)
    for number in range(count):
        job = extract.job(mutator.next(), budgets=_BUDGETS)
        try:
            with suppress(InvalidLayer):
                extract.run(job)
        except Exception as exc:
            exc.add_note(f"archive {number} of Mutator({seed})")
            raise
        subprocess.run(["rm", "-rf", job.target, job.blob], check=True)


def _fire_beside_a_canary(extract: Extract, tmp_path: Path, seed: int, count: int) -> None:
    outside = tmp_path / "x"
    outside.mkdir(exist_ok=True)
    (outside / "x").write_bytes(b"untouched")
    before = canary.snapshot(outside)
    _fire(extract, seed, count)
    assert canary.differences(before, canary.snapshot(outside)) == []


def test_damaged_archives_are_extracted_or_refused(
    extract: Extract, tmp_path: Path, tried: Callable[[int], None]
) -> None:
    _fire_beside_a_canary(extract, tmp_path, 1, 150)
    tried(150)


@pytest.mark.long
@pytest.mark.timeout(_MINUTES * 60 + 120)
def test_minutes_of_damage_kill_no_worker(
    extract: Extract, tmp_path: Path, tried: Callable[[int], None]
) -> None:
    deadline = time.monotonic() + _MINUTES * 60
    for seed in itertools.count(time.time_ns()):
        _fire_beside_a_canary(extract, tmp_path, seed, 100)
        tried(100)
        if time.monotonic() > deadline:
            break
