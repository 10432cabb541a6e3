"""The metrics of a real mount: they count what its users do and meet."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support import clients, daemon
from tests.support.images import file, image, layer
from tests.support.registry import Registry
from tests.test_metrics import values

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


def test_a_mount_counts_requests_waits_and_failures(
    registry: Registry, store: Path, mountpoint: Path
) -> None:
    good = registry.push("metrics/good", "1", image(layer(file("a", b"a"))))
    blob = layer(file("b", os.urandom(16)))
    bad = registry.push("metrics/bad", "1", image(blob))
    registry.corrupt(blob.digest)
    with daemon.running(store, mountpoint) as running:
        path = mountpoint / ".layerfs/metrics"
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
        before = values(clients.read(path))

        for name in ("one", "two", "three"):
            assert clients.run("cat", running.images / str(good) / name).returncode == 1
        assert clients.read(running.images / str(good) / "rootfs/a") == b"a"
        assert clients.run("ls", running.images / str(bad) / "rootfs/").returncode != 0
        after = values(clients.read(path))

    def grown(*key: str) -> float:
        return after.get(key, 0) - before.get(key, 0)

    assert grown("layerfs_request_errors_total", "errno=ENOENT", "operation=lookup") >= 3
    assert grown("layerfs_request_errors_total", "errno=EIO", "operation=opendir") == 1
    assert grown("layerfs_requests_total", "operation=lookup") >= 6
    assert grown("layerfs_request_wait_seconds_count", "operation=opendir") >= 1
    assert grown("layerfs_fetched_blobs_total") == 1
    assert grown("layerfs_failures_total", "error=DigestMismatch") == 1
    assert after["layerfs_disk_bytes",] == os.statvfs(store).f_blocks * os.statvfs(store).f_frsize
    assert subprocess.run(["mountpoint", "-q", mountpoint], check=False).returncode != 0
