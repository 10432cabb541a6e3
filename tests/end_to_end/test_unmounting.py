"""`layerfs umount`: of what serves, of what is dead, of what is in use."""

import os
from pathlib import Path

import pytest

from tests.support import clients, daemon, mounts

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


def test_a_dead_mount_is_unmounted(store: Path, mountpoint: Path) -> None:
    with daemon.running(store, mountpoint) as running:
        running.kill()

        daemon.layerfs("umount", mountpoint)

        assert mounts.mount_at(mountpoint) is None
        assert os.listdir(mountpoint) == []


def test_a_mount_in_use_stays_and_says_how_it_can_go(store: Path, mountpoint: Path) -> None:
    with (
        daemon.running(store, mountpoint),
        clients.started("sh", "-c", f"cd {mountpoint} && exec sleep 60") as user,
    ):
        clients.wait_until(lambda: Path(f"/proc/{user.pid}/cwd").resolve() == mountpoint)

        done = daemon.layerfs("umount", mountpoint, check=False)

        assert done.returncode != 0
        assert "--lazy" in done.stderr
        assert "images" in clients.names(mountpoint)


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
