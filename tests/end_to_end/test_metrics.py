"""The metrics of a real mount: they count what its users do and meet."""

import os
import re
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from tests.overlay.scene import command
from tests.support import clients, daemon, mounts
from tests.support.daemon import Daemon
from tests.support.images import file, image, layer, tar
from tests.support.registry import Registry
from tests.support.tocs import estargz
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
    assert grown("layerfs_layers_total", "level=whole", "result=done") == 1
    assert grown("layerfs_layers_total", "level=whole", "result=failed") == 1
    assert after["layerfs_disk_bytes",] == os.statvfs(store).f_blocks * os.statvfs(store).f_frsize
    assert subprocess.run(["mountpoint", "-q", mountpoint], check=False).returncode != 0


def configured(place: Path, line: str) -> dict[str, str]:
    """Return the environment of a daemon whose configuration has this line."""
    path = place / "layerfs.toml"
    path.write_text(f"{line}\n")
    return {"LAYERFS_CONFIG": str(path)}


def read(running: Daemon) -> dict[tuple[str, ...], float]:
    return values(clients.read(running.mountpoint / ".layerfs/metrics"))


def kill_workers(running: Daemon, module: str) -> None:
    """End the processes of the daemon that run *module*, as a lack of memory would."""
    pids = clients.children(module, running.pid)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    clients.wait_until(lambda: not any(map(clients.runs, pids)))


def test_a_mount_counts_levels_of_layers_the_bell_bytes_by_sender_and_deaths(
    registry: Registry, tmp_path: Path
) -> None:
    lazy, looked = estargz(tar([file("a", os.urandom(3 << 20))])), estargz(tar([file("c", b"c")]))
    pushed = registry.push("metrics/lazy", "1", image(lazy.built))
    looked_at = registry.push("metrics/looked-at", "1", image(looked.built))
    other = registry.push("metrics/other", "1", image(estargz(tar([file("d", os.urandom(16))])).built))
    root = tmp_path / "root"
    root.mkdir()
    environment = configured(tmp_path, 'background = "never"')
    with daemon.running(tmp_path / "store", tmp_path / "mount", environment=environment) as running:
        try:
            command("overlay", "--lazy", "always", "--store", running.store, str(pushed), root)
            before = read(running)
            assert len(clients.read(root / "a")) == 3 << 20
            assert clients.read(root / "a")
            after = read(running)
        finally:
            mounts.clear(root)
        sent = after["layerfs_received_bytes_total", "source=upstream"]
        before_it = before["layerfs_received_bytes_total", "source=upstream"]
        assert sent - before_it >= 2 << 20, "all but the end, which the TOC came with"
        assert after["layerfs_received_bytes_total", "source=mirror"] == 0
        assert after["layerfs_mirror_fallbacks_total",] == 0
        assert after["layerfs_bell_files_total",] == 1
        assert after["layerfs_layers_total", "level=partly", "result=done"] == 1

        assert clients.read(running.images / str(looked_at) / "rootfs/c") == b"c"
        assert read(running)["layerfs_layers_total", "level=toc", "result=done"] == 1

        for module in ("layerfs.fetch.downloader", "layerfs.extract.worker"):
            kill_workers(running, module)
        assert clients.read(running.images / str(other) / "rootfs/d")
        found = read(running)
        assert found["layerfs_worker_deaths_total", "worker=downloader"] == 1
        assert found["layerfs_worker_deaths_total", "worker=extractor"] >= 1


def test_a_mount_counts_what_it_evicts(registry: Registry, store: Path, tmp_path: Path) -> None:
    pushed = registry.push("metrics/evicted", "1", image(layer(file("a", os.urandom(5000)))))
    assert daemon.layerfs("pull", str(pushed), store=store).returncode == 0
    environment = configured(tmp_path, 'max_size = "1"')
    with daemon.running(store, tmp_path / "mount", environment=environment) as running:
        clients.wait_until(lambda: ("layerfs_evictions_total", "kind=layer") in read(running))
        assert read(running)["layerfs_evictions_total", "kind=layer"] == 1
        assert read(running)["layerfs_evicted_bytes_total",] >= 5000
        # Its documents stay: what is evicted can still be named.
        clients.wait_until(lambda: 0 < read(running)["layerfs_store_bytes",] < 500_000)


def test_the_service_of_the_paper_writes_a_file_for_node_exporter(store: Path, mountpoint: Path) -> None:
    paper = Path(__file__).parents[2] / "docs/monitoring.md"
    (command,) = re.findall(r"^ExecStart=/bin/sh -c '(.+)'$", paper.read_text("utf-8"), re.MULTILINE)
    place = store.with_name("textfiles")
    place.mkdir()
    with daemon.running(store, mountpoint):
        script = command.replace("/images/", f"{mountpoint}/")
        subprocess.run(["/bin/sh", "-c", script], cwd=place, check=True)
    assert [path.name for path in place.iterdir()] == ["layerfs.prom"], "a collector reads whole files alone"
    assert ("layerfs_waiting",) in values((place / "layerfs.prom").read_bytes())


def test_a_mount_counts_what_mirrors_give_and_how_often_they_have_nothing(
    registry: Registry, own_registry: Registry, store: Path, mountpoint: Path, tmp_path: Path
) -> None:
    here, there = (image(layer(file("a", os.urandom(5000)))) for _ in range(2))
    mirrored = registry.push("metrics/mirrored", "1", here)
    own_registry.push("metrics/mirrored", "1", here)
    missing = registry.push("metrics/missing", "1", there)
    hosts = tmp_path / "certs.d" / registry.host
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text(f'[host."http://{own_registry.host}"]\n')
    environment = configured(tmp_path, f'hosts_dir = "{tmp_path}/certs.d"')
    with daemon.running(store, mountpoint, environment=environment) as running:
        assert clients.read(running.images / str(mirrored) / "rootfs/a")
        mirrors_alone = read(running)
        assert clients.read(running.images / str(missing) / "rootfs/a")
        both = read(running)

    assert mirrors_alone["layerfs_received_bytes_total", "source=mirror"] >= 5000
    assert mirrors_alone["layerfs_received_bytes_total", "source=upstream"] == 0
    assert mirrors_alone["layerfs_mirror_fallbacks_total",] == 0
    assert both["layerfs_received_bytes_total", "source=upstream"] >= 5000
    assert both["layerfs_mirror_fallbacks_total",] >= 1
