"""Two hundred sandboxes of one image at once, again and again: nothing is left of those that have ended."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import layerfs
from tests.support import mounts

ROOT = Path(__file__).parents[2]
MORE_DESCRIPTORS = 8
MORE_THREADS = 48
"""trio keeps threads for ten seconds, up to forty."""
MORE_MEMORY = 32 << 20
"""Bytes that the allocator may keep, which has an arena for each of those threads; objects are counted."""
MORE_OBJECTS = 1000


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("face", "count", "seconds"),
    [
        ("trio", 20, 0),
        pytest.param("threads", 20, 0, marks=pytest.mark.long),
        pytest.param("trio", 200, 60, marks=pytest.mark.long),
        pytest.param("threads", 200, 60, marks=pytest.mark.long),
    ],
)
def test_sandboxes_leave_nothing(
    store: Path, reference: str, tmp_path: Path, face: str, count: int, seconds: int
) -> None:
    with layerfs.Store.open(store) as opened:
        opened.pull(reference)
    (places := tmp_path / "roots").mkdir()
    words = [sys.executable, "-m", "tests.api.sandboxes", face, store, reference, places, count, seconds]
    try:
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=ROOT)
    finally:
        mounts.clear(places)
    assert done.stderr == ""
    told = json.loads(done.stdout)
    first, last = told["looks"]

    assert told["rounds"] >= 2
    assert (last["mounts"], last["processes"], last["scratches"], last["leases"]) == (0, 0, 0, 1)
    assert last["descriptors"] <= first["descriptors"] + MORE_DESCRIPTORS
    assert last["threads"] <= first["threads"] + MORE_THREADS
    assert last["objects"] <= first["objects"] + MORE_OBJECTS
    assert last["memory"] <= first["memory"] + MORE_MEMORY
    assert list((store / "leases").iterdir()) == []
