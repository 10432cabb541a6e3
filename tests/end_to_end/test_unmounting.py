"""`layerfs umount`: of what serves, of what is dead, of what is in use."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from layerfs.host.occupants import read_occupants
from tests.support import clients, daemon, mounts

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


def test_a_dead_mount_is_unmounted(store: Path, mountpoint: Path) -> None:
    with daemon.running(store, mountpoint) as running:
        running.kill()

        daemon.layerfs("umount", mountpoint)

        assert mounts.mount_at(mountpoint) is None
        assert os.listdir(mountpoint) == []


def test_a_mount_in_use_stays_and_says_who_uses_it_and_how_it_can_go(store: Path, mountpoint: Path) -> None:
    held = mountpoint / ".layerfs/status.json"
    with (
        daemon.running(store, mountpoint),
        clients.started("sh", "-c", f"cd {mountpoint} && exec sleep 60") as user,
        clients.started("sleep", "60") as stranger,
    ):
        clients.wait_until(lambda: Path(f"/proc/{user.pid}/cwd").resolve() == mountpoint)

        done = daemon.layerfs("umount", mountpoint, check=False)

        assert done.returncode == 1
        assert done.stderr == (
            f"layerfs: {mountpoint}: in use by sleep (pid {user.pid}, works in {mountpoint}); "
            "let go of it there, or unmount with --lazy\n"
        )
        assert "images" in clients.names(mountpoint)
        user.kill()
        user.wait()
        with clients.started("sh", "-c", f"exec sleep 60 <{held}") as user:
            clients.wait_until(lambda: Path(f"/proc/{user.pid}/comm").read_text() == "sleep\n")
            done = daemon.layerfs("umount", mountpoint, check=False)
            assert f"in use by sleep (pid {user.pid}, has open {held});" in done.stderr
            assert str(stranger.pid) not in done.stderr


def test_a_mount_below_another_is_named(store: Path, mountpoint: Path) -> None:
    with daemon.running(store, mountpoint), mounts.tmpfs(mountpoint / "images"):
        done = daemon.layerfs("umount", mountpoint, check=False)

    assert (
        f"{mountpoint}: in use by the mount {mountpoint}/images below it; unmount that before" in done.stderr
    )


def test_who_runs_or_maps_what_a_mount_has_uses_it(tmp_path: Path) -> None:
    library = importlib.util.find_spec("msgspec._core")  # no part of the interpreter, as some are
    assert library is not None
    with mounts.tmpfs(tmp_path / "disk") as disk:
        shutil.copy(str(library.origin), disk / "library")
        shutil.copy("/bin/sleep", disk / "program")
        status = disk.stat()
        device = os.major(status.st_dev), os.minor(status.st_dev)
        load = f"import ctypes; ctypes.CDLL({str(disk / 'library')!r}); input()"
        with (
            clients.started(str(disk / "program"), "60") as runs,
            subprocess.Popen([sys.executable, "-c", load], stdin=subprocess.PIPE) as maps,
        ):
            clients.wait_until(lambda: len(read_occupants({device}).of(device)) == 2)
            found = {(one.pid, one.does, one.path) for one in read_occupants({device}).of(device)}
            maps.communicate(b"\n")
        assert found == {
            (runs.pid, "runs", str(disk / "program")),
            (maps.pid, "maps", str(disk / "library")),
        }


@pytest.mark.parametrize("is_dead", [False, True], ids=["alive", "dead"])
def test_lazily_a_mount_in_use_goes_at_once(store: Path, mountpoint: Path, is_dead: bool) -> None:
    with (
        daemon.running(store, mountpoint) as running,
        clients.started("sh", "-c", f"cd {mountpoint} && exec sleep 60") as user,
    ):
        clients.wait_until(lambda: Path(f"/proc/{user.pid}/cwd").resolve() == mountpoint)
        if is_dead:
            running.kill()

        daemon.layerfs("umount", "--lazy", mountpoint)

        assert mounts.mount_at(mountpoint) is None
        user.kill()
        user.wait()
        if not is_dead:
            assert running.wait() == 0, running.log()
