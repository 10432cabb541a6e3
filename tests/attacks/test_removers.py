"""Removers and sweepers at full speed beside overlays: what is mounted is whole, and nothing else is."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.attacks import ground
from tests.attacks.ground import Ground
from tests.support import canary, clients, daemon, mounts

pytestmark = [pytest.mark.needs_root]

COMPARISONS = 6


@pytest.mark.parametrize("seed", ground.rounds(0, 20))
def test_what_is_mounted_is_whole_beside_removers(
    attacked: Ground, memory: Path, mountpoint: Path, seed: int, tried: Callable[[int], None]
) -> None:
    store, name = memory / "store", attacked.names[seed % len(attacked.names)]
    daemon.layerfs("overlay", name, mountpoint, store=store)
    expected = canary.snapshot(mountpoint)
    daemon.layerfs("overlay", "--umount", mountpoint, store=store)
    command = [sys.executable, "-m", "tests.attacks.remover", str(store), str(seed)]
    removers = [
        subprocess.Popen(
            [*command[:-1], f"{seed} {n}"], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        for n in range(2)
    ]
    try:
        # A remover may win between the fetch and the mount; then nothing is mounted, and that is said.
        clients.wait_until(
            lambda: daemon.layerfs("overlay", name, mountpoint, store=store, check=False).returncode == 0, 100
        )
        for _ in range(COMPARISONS):
            canary.assert_same(expected, canary.snapshot(mountpoint), ignore={"mtime_ns"})
            tried(1)
    finally:
        for remover in removers:
            remover.terminate()
        said = [remover.communicate(timeout=60)[0] for remover in removers]
        mounts.clear(mountpoint)

    assert [remover.returncode for remover in removers] == [0, 0]
    assert sum(int(words.split()[1]) for words in said) > 0, "nothing was removed from under the mount"
    attacked.compare(store)
    attacked.heal(store)
