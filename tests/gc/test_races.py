"""Users and removers of one store at the same time: nobody loses what he uses, or sees half of it."""

import os
import random
import signal
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from layerfs.catalog.inventory import take_inventory
from layerfs.gc.collect import Collector
from layerfs.gc.jobs import collect_garbage, remove_images
from layerfs.store import ImageStorage
from layerfs.store.stock import Stored
from tests.gc.racing import DIGESTS, IMAGES, LAYERS, Racer
from tests.store.helpers import leftovers
from tests.support.clients import wait_until
from tests.support.images import index

pytestmark = pytest.mark.needs_root

PROCESSES = 8


class Race:
    """Processes that race on one store; `check` raises what one of them failed with."""

    def __init__(self, place: Path) -> None:
        self.store = place / "store"
        self.work = place / "work"
        self.work.mkdir()
        for number, built in enumerate(LAYERS):
            (place / f"{number}.tar").write_bytes(built.blob)
        ImageStorage(self.store).close()
        self.running: dict[int, int] = {}
        self._seeds = iter(range(1 << 30))

    def start(self, seconds: float, at_least: int) -> None:
        """Start one more process."""
        seed = next(self._seeds)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with (self.work / "done").open("ab", buffering=0) as done:
                    Racer(self.store, self.work, seed).run(seconds, at_least, done)
                status = 0
            except BaseException:  # noqa: BLE001 - the parent reports it
                (self.work / f"{seed}.error").write_text(traceback.format_exc())
            finally:
                os._exit(status)
        self.running[pid] = seed

    def kill(self, pid: int) -> None:
        """Kill one, wherever it is."""
        os.kill(pid, signal.SIGKILL)
        del self.running[pid]
        status = os.waitpid(pid, 0)[1]
        assert os.WIFSIGNALED(status) or status == 0, self.errors()

    def finish(self) -> Counter[bytes]:
        """Wait for all; return how often each thing was done."""
        while self.running:
            pid, status = os.wait()
            if self.running.pop(pid, None) is not None:
                assert status == 0, self.errors()
        return Counter((self.work / "done").read_bytes().split())

    def errors(self) -> str:
        """Return what they failed with."""
        return "\n".join(path.read_text() for path in self.work.glob("*.error"))

    def end(self) -> None:
        """End all that still run."""
        for pid in list(self.running):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.long)])
def test_eight_processes_use_and_remove_at_random_and_nobody_loses_anything(
    memory: Path, seconds: float, tried: Callable[[int], None]
) -> None:
    seconds = float(os.environ.get("LAYERFS_TEST_RACE_SECONDS", seconds))
    race, choose = Race(memory), random.Random(0)
    try:
        for _ in range(PROCESSES):
            race.start(seconds, 20)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(1.0, seconds / 8))
            race.kill(choose.choice(list(race.running)))
            race.start(max(1.0, end - time.monotonic()), 20)
        done = race.finish()
    finally:
        race.end()
    assert len(done) == 11, done
    tried(done.total())
    nothing_is_left_once_nobody_needs_anything(race.store)


def nothing_is_left_once_nobody_needs_anything(store: Path) -> None:
    with ImageStorage(store) as storage:
        assert not any(map(storage.usage().uses, DIGESTS)), "of other tests there may be mounts"
        numbers_agree_with_du(storage)
        remove_images(storage, dict(storage.refs.all()))
        for name, _ in list(storage.leases.all()):  # those with a time
            storage.leases.remove(name)

        def is_empty() -> bool:
            collect_garbage(storage)
            return not (take_inventory(storage).things or leftovers(store))

        wait_until(is_empty)  # workers of those who were killed may still write
        for place in ("extracted", "covers", "layers", "manifests", "configs", "refs"):
            assert os.listdir(store / place) == []
        numbers_agree_with_du(storage)


def numbers_agree_with_du(storage: ImageStorage) -> None:
    du = subprocess.run(["du", "-s", "-B1", storage.images_dir], check=True, capture_output=True)
    assert take_inventory(storage).total == int(du.stdout.split()[0])


def test_another_platform_that_comes_while_garbage_is_collected_keeps_its_layers(store: Path) -> None:
    amd, arm = IMAGES[0], IMAGES[3]
    both = index(amd, arm)
    with ImageStorage(store) as storage:
        storage.save_manifest(both.manifest, both.digest)
        storage.save_manifest(amd.manifest, amd.digest)
        collector = Collector(storage)
        assert not collector.needs_of(both.digest) & set(DIGESTS[4:])
        storage.save_manifest(arm.manifest, arm.digest)
        assert collector.needs_of(both.digest) >= {*DIGESTS[:2], *DIGESTS[4:]}
        storage.remover.remove([Stored("manifest", amd.digest)], lambda: lambda _: "")
        assert collector.needs_of(both.digest) >= {*DIGESTS[:2], *DIGESTS[4:]}
