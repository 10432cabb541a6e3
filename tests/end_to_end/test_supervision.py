"""A daemon and who started it: what systemd is told, and what SIGHUP puts in force without unmounting."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import clients, daemon, images, mounts
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def _until(heard: socket.socket, is_it: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """Return the first message that is it, as systemd reads it: lines of NAME=VALUE."""
    while True:
        message = dict(line.split("=", 1) for line in heard.recv(4096).decode().splitlines())
        if is_it(message):
            return message


def test_systemd_is_told_of_the_whole_life_of_a_mount(
    store: Path, mountpoint: Path, configuration: Path, tmp_path: Path
) -> None:
    configuration.write_text("")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(60)
        environment = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "LAYERFS_CONFIG": str(configuration),
            "WATCHDOG_USEC": "300000",
        }
        with daemon.running(store, mountpoint, environment=environment) as running:
            assert _until(heard, lambda message: True) == {"READY": "1"}
            alive = _until(heard, lambda message: "WATCHDOG" in message)
            assert alive["STATUS"].startswith(f"Serving {mountpoint}: ")

            os.kill(running.pid, signal.SIGHUP)
            reload = _until(heard, lambda message: "RELOADING" in message)
            assert 0 < int(reload["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            _until(heard, lambda message: "READY" in message)
            _until(heard, lambda message: "WATCHDOG" in message)

            running.process.terminate()
            _until(heard, lambda message: "STOPPING" in message)
            assert running.wait() == 0
            assert mounts.mount_at(mountpoint) is None


def test_sighup_puts_a_changed_configuration_in_force_and_unmounts_nothing(
    registry: Registry, store: Path, mountpoint: Path, configuration: Path
) -> None:
    first = registry.push("reload/first", "1", images.image(images.layer(images.file("a", b"a" * 100))))
    second = registry.push("reload/second", "1", images.image(images.layer(images.file("b", b"b\n"))))
    configuration.write_text("[log]\nlevel = 'warning'\n")
    with daemon.running(store, mountpoint, environment={"LAYERFS_CONFIG": str(configuration)}) as running:

        def reload(text: str, said: str) -> None:
            configuration.write_text(text)
            os.kill(running.pid, signal.SIGHUP)
            clients.wait_until(lambda: said in running.log())

        with (running.images / str(first) / "rootfs/a").open("rb", buffering=0) as held:
            assert held.read(1) == b"a"
            device = os.fstat(held.fileno()).st_dev

            reload("offline = true\n", "changed: offline, log_level")
            with pytest.raises(OSError, match="Network is down"):
                os.listdir(running.images / str(second))
            reload("offline = maybe\n", "what was in force stays")
            with pytest.raises(OSError, match="Network is down"):
                os.listdir(running.images / str(second))
            reload('max_size = "90%"\npoll = false\n', "poll: changed, and in force from the next mount on")

            assert (running.images / str(second) / "rootfs/b").read_bytes() == b"b\n"
            assert held.read() == b"a" * 99
            assert os.stat(mountpoint).st_dev == device
        assert "changed: offline, max_size" in running.log()
