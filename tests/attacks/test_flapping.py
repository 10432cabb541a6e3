"""A registry that now works and now does not, while several commands pull from it into one store."""

import contextlib
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.attacks import ground
from tests.attacks.ground import Ground
from tests.support import clients, daemon
from tests.support.daemon import LAYERFS, Daemon
from tests.support.faulty_registry import Answer, FaultyRegistry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse, pytest.mark.allow_warnings]

_STATUSES = (404, 408, 416, 429, 500, 502, 503, 504, 200, 206, 301)
PULLS = 3


def flap(registry: FaultyRegistry, choose: random.Random) -> None:
    """Throw all switches anew: what comes first, where bodies break off, which bytes are altered."""
    faults = registry.faults
    faults.first = [
        (
            choose.choice(("/blobs/", "/manifests/", "/v2/")),
            Answer(choose.choice(_STATUSES), choose.randbytes(30), cut=choose.choice((None, 0, 7))),
        )
        for _ in range(choose.randrange(5))
    ]
    faults.cut_blobs = [choose.randrange(200_000) for _ in range(choose.randrange(4))]
    faults.short_blobs = [choose.randrange(200_000) for _ in range(choose.randrange(2))]
    faults.refuse_range = choose.random() < 0.2
    faults.ignore_range = choose.random() < 0.2
    faults.wrong_bytes = choose.random() < 0.3
    faults.chunked = choose.random() < 0.3


def _read(running: Daemon, name: str) -> list[str | Path]:
    return ["tar", "-C", running.images / name / "rootfs/", "-cf", "/dev/null", "."]


def _reads(running: Daemon, name: str) -> bool:
    return clients.run(*_read(running, name)).returncode == 0


@pytest.mark.parametrize("seed", ground.rounds(0, 16))
def test_a_flapping_registry_leaves_no_wrong_byte(
    attacked: Ground,
    faulty: FaultyRegistry,
    memory: Path,
    mountpoint: Path,
    seed: int,
    tried: Callable[[int], None],
) -> None:
    choose, store = random.Random(seed), memory / "store"
    for number, image in enumerate(attacked.images):
        faulty.push(f"flapping/{number}", "latest", image)
    names = [f"{faulty.host}/flapping/{number}:latest" for number in range(len(attacked.images))]
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(daemon.running(store, mountpoint))
        for _ in range(PULLS):
            flap(faulty, choose)
            started = [
                *(
                    stack.enter_context(
                        clients.started("env", f"LAYERFS_STORE={store}", *LAYERFS, "pull", name)
                    )
                    for name in choose.sample(names, 2)
                ),
                stack.enter_context(clients.started(*_read(running, choose.choice(names)))),
            ]
            flap(faulty, choose)
            for client in started:
                assert b"Traceback" not in clients.finish(client, timeout=100).stderr
            attacked.compare(store)
            tried(len(started))
        faulty.faults.first, faulty.faults.wrong_bytes = [], False
        for name in names:
            clients.wait_until(partial(_reads, running, name))
        assert running.stop() == 0

    assert "Traceback" not in running.log()
    attacked.nothing_runs()
    assert attacked.compare(store) == len(attacked.trees)
    attacked.heal(store)
