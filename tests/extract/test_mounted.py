"""Workers of a real daemon: one that is killed fails its layer, says so in the log, and is replaced."""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import clients, daemon, images
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_SLOW = images.layer(*(images.file(f"d{n % 100}/f{n}") for n in range(20_000)))
_SMALL = images.layer(images.file("small", b"small"))


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def _workers(pid: int) -> list[int]:
    return [child for child in _children(pid) if b"layerfs.extract.worker" in _command(child)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _soon(find: Callable[[], list[int]]) -> int:
    deadline = time.monotonic() + 30
    while not (found := find()):
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.001)
    return found[0]


@pytest.mark.parametrize("victim", ["worker", "writer"])
def test_a_killed_worker_is_an_error_once_and_the_next_access_tries_again(
    registry: Registry, store: Path, mountpoint: Path, victim: str
) -> None:
    reference = registry.push("killed", "latest", images.image(_SMALL, _SLOW))
    with daemon.running(store, mountpoint) as running:
        layers = running.images / str(reference) / "layers"
        failures: list[OSError] = []

        def read() -> None:
            try:
                clients.names(layers / "01/diff")
            except OSError as exc:
                failures.append(exc)

        reading = threading.Thread(target=read)
        reading.start()
        pid = _soon(lambda: _workers(running.pid))
        os.kill(pid if victim == "worker" else _soon(lambda: _children(pid)), signal.SIGKILL)
        reading.join()

        assert [exc.errno for exc in failures] == [errno.EIO]
        assert f"extractor {pid}: " in running.log()
        assert clients.read(layers / "00/diff/small") == b"small"
        assert len(clients.names(layers / "01/diff")) == 100
        assert _workers(running.pid) != []
        assert pid not in _workers(running.pid)


def test_workers_end_when_the_daemon_is_killed(registry: Registry, store: Path, mountpoint: Path) -> None:
    reference = registry.push("orphans", "latest", images.image(_SMALL))
    with daemon.running(store, mountpoint) as running:
        clients.names(running.images / str(reference) / "layers/00/diff")
        (pid,) = _workers(running.pid)
        family = [pid, *_children(pid)]

        running.kill()

        deadline = time.monotonic() + 20
        while any(b"layerfs.extract.worker" in _command(one) for one in family):
            assert time.monotonic() < deadline, "a worker lives on"
            time.sleep(0.01)
