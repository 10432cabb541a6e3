"""SIGKILL of a process of layerfs at a random moment while a mount and commands work on one store."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.attacks import ground
from tests.attacks.ground import Ground
from tests.support import clients, daemon
from tests.support.daemon import LAYERFS, Daemon

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_DOWNLOADER, _WORKER = "layerfs.fetch.downloader", "layerfs.extract.worker"
_LONGEST_WAIT = 5.0
"""Seconds in which a process that is to die has to show up."""

Command = subprocess.Popen[bytes]


def _workers(running: Daemon, commands: list[Command]) -> list[int]:
    owners = [running.pid, *(command.pid for command in commands if command.poll() is None)]
    return [pid for owner in owners for pid in clients.children(_WORKER, owner)]


VICTIMS: dict[str, Callable[[Daemon, list[Command]], list[int]]] = {
    "daemon": lambda running, _: [running.pid],
    "command": lambda _, commands: [command.pid for command in commands if command.poll() is None],
    "downloader": lambda running, _: clients.children(_DOWNLOADER, running.pid),
    "worker": _workers,
    "writer": lambda running, commands: [
        pid for worker in _workers(running, commands) for pid in clients.children(_WORKER, worker)
    ],
}


def _killed(find: Callable[[], list[int]], choose: random.Random, *, every: bool) -> bool:
    """Kill one of the processes that *find* finds, or all; say whether there was one."""
    deadline = time.monotonic() + _LONGEST_WAIT
    while not (found := find()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    for pid in found if every else [choose.choice(found)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return True


@pytest.mark.allow_warnings
@pytest.mark.parametrize("number", ground.rounds(1, 20))
@pytest.mark.parametrize(
    "victim",
    [pytest.param(name, marks=[] if name == "all" else pytest.mark.long) for name in (*VICTIMS, "all")],
)
def test_a_kill_under_load_harms_nobody(
    attacked: Ground, memory: Path, mountpoint: Path, victim: str, number: int, tried: Callable[[int], None]
) -> None:
    choose = random.Random(f"{victim} {number}")
    store = memory / "store"
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(daemon.running(store, mountpoint))
        commands = [
            stack.enter_context(clients.started("env", f"LAYERFS_STORE={store}", *LAYERFS, "pull", name))
            for name in attacked.names[1:]
        ]
        readers = [
            stack.enter_context(
                clients.started(
                    "sh", "-c", 'cd "$1" && tar -cf - . | wc -c', "sh", running.images / name / tree
                )
            )
            for name, tree in zip(attacked.names, ("rootfs/", "layers/01/diff/", "rootfs/"), strict=True)
        ]
        time.sleep(choose.uniform(0.2, 2.0))  # a moment anywhere in the work: what is tried here
        hit = _killed(
            attacked.running if victim == "all" else partial(VICTIMS[victim], running, commands),
            choose,
            every=victim == "all",
        )
        for client in (*readers, *commands):
            clients.finish(client)
        if victim not in ("daemon", "all"):
            assert running.stop() == 0
    attacked.nothing_runs()
    attacked.compare(store)
    attacked.heal(store)
    tried(int(hit))
