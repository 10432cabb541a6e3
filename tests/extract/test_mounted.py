"""Workers of a real daemon: one that is killed fails its layer, says so in the log, and is replaced."""

import errno
import os
import signal
from pathlib import Path

import pytest

from tests.support import clients, daemon, images
from tests.support.faulty_registry import FaultyRegistry
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_LARGE = images.layer(
    *(images.file(f"d{n % 100}/f{n}", b"x" * 4000) for n in range(2000)), compression="none"
)
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


@pytest.mark.parametrize("victim", ["worker", "writer"])
def test_a_killed_worker_is_an_error_once_and_the_next_access_tries_again(
    store: Path, mountpoint: Path, victim: str
) -> None:
    with FaultyRegistry() as registry, daemon.running(store, mountpoint) as running:
        registry.push("killed", "latest", images.image(_SMALL, _LARGE))
        layers = running.images / registry.host / "killed:latest/layers"
        assert clients.names(layers) == {"00", "01"}
        registry.faults.stall_blobs = [_LARGE.size // 2]
        with clients.started("ls", layers / "01/diff/") as reading:
            # In the middle of its job, which waits for the other half of the blob.
            clients.wait_until(lambda: len(list(store.glob("extracted/*.extracting/*"))) > 50)
            (pid,) = _workers(running.pid)
            (writer,) = _children(pid)
            os.kill(pid if victim == "worker" else writer, signal.SIGKILL)
            assert os.strerror(errno.EIO) in clients.finish(reading).stderr.decode()

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

        clients.wait_until(lambda: not any(b"layerfs.extract.worker" in _command(one) for one in family))
