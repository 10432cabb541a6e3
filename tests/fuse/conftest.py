"""A running edge over the tree of `tests.support.memory_tree`, always unmounted."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import clients
from tests.support.daemon import Daemon, running
from tests.support.edge_daemon import Requests

PATIENCE = 60.0
"""Seconds after which something that should happen did not."""


@dataclass(frozen=True)
class Edge:
    """A daemon of `tests.support.edge_daemon`."""

    daemon: Daemon
    control: Path
    requests: Requests

    @property
    def root(self) -> Path:
        return self.daemon.mountpoint

    def meet(self, name: str, failure: str = "") -> None:
        """Let the need *name* be met, or fail with an error class."""
        temporary = self.control / f".{name}"
        temporary.write_text(failure)
        temporary.rename(self.control / name)

    def stats(self) -> dict[str, int]:
        found: dict[str, int] = json.loads((self.root / "changing" / "stats.json").read_text())
        return found


@contextmanager
def edge_at(base: Path, *arguments: str) -> Iterator[Edge]:
    control = base / "control"
    control.mkdir(parents=True)
    mountpoint = base / "mnt"
    command = [sys.executable, "-m", "tests.support.edge_daemon", str(mountpoint), str(control), *arguments]
    with running(base, mountpoint, command=command) as daemon:
        yield Edge(daemon, control, Requests(control))
    for trouble in ("released, but not open", "lookups forgotten (expected"):
        assert trouble not in daemon.log(), daemon.log()[-2000:]


@pytest.fixture(scope="module")
def shared_edge(tmp_path_factory: pytest.TempPathFactory, _nothing_is_left_over: None) -> Iterator[Edge]:
    """One for tests that only look."""
    with edge_at(tmp_path_factory.mktemp("edge")) as edge:
        yield edge


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    with edge_at(tmp_path) as edge:
        yield edge


@contextmanager
def started(command: Sequence[str | Path]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a client that is dead after the block; kill only what waits for a mount that will end."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once *condition* holds; fail if it never does."""
    clients.wait_until(condition, PATIENCE)


def drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("2")
