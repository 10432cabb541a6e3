"""``layerfs umount`` of a mount that lazy overlays ask: it names them, and only ``--force`` harms them."""

import json
import os
import signal
from pathlib import Path

import pytest

from layerfs.oci import Tag
from layerfs.status import parse_status
from tests.overlay.scene import command
from tests.overlay.test_bell import FILES, IMAGE
from tests.overlay.test_own_bell import Place
from tests.support import clients, daemon, mounts
from tests.support.daemon import Daemon
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


@pytest.fixture(scope="module")
def pushed(_session_registry: Registry) -> Tag:
    return _session_registry.push("overlay/umount", "1", IMAGE)


def test_who_asks_it_is_named_and_asks_on(root: Path, mounted: Daemon) -> None:
    assert clients.read(root / "etc/motd") == FILES["etc/motd"]

    done = daemon.layerfs("umount", mounted.mountpoint)

    pid = mounted.process.pid
    head, one, way = done.stderr.splitlines()
    goes_on = f"unmounted; its daemon (pid {pid}) goes on until these lazy overlays are:"
    assert head == f"layerfs: {mounted.mountpoint}: {goes_on}"
    assert one == f"layerfs:   {root}: 56 files, 3.2 MB, are not here"
    assert way == f"layerfs:   layerfs status --heal --store {mounted.store} has the rest here"
    assert done.stdout == ""
    assert mounts.mount_at(mounted.mountpoint) is None
    assert clients.read(root / "large") == FILES["large"]
    mounts.clear(root)
    assert mounted.process.wait(60) == 0, "with the last of them"


def test_json_says_it_too(root: Path, mounted: Daemon) -> None:
    for name in FILES:
        clients.read(root / name)
    done = daemon.layerfs("umount", "--json", mounted.mountpoint)
    assert done.stderr == ""
    (said,) = json.loads(done.stdout)
    (overlay,) = said.pop("lazy_overlays")
    assert said == {"mountpoint": str(mounted.mountpoint), "daemon": "goes on", "pid": mounted.process.pid}
    assert (overlay["mountpoint"], overlay["store"]) == (str(root), str(mounted.store))
    assert overlay["files"] > 0
    assert overlay["bytes"] > 0


def test_force_ends_the_daemon_and_says_whom_it_cuts_off(root: Path, mounted: Daemon) -> None:
    assert clients.read(root / "etc/motd") == FILES["etc/motd"]

    done = daemon.layerfs("umount", "--force", mounted.mountpoint)

    head, one, way = done.stderr.splitlines()
    assert head.endswith("ends; lazy overlays are cut off from what is not here:")
    assert one.startswith(f"layerfs:   {root}: 5")
    assert mounted.process.wait(60) == 0
    assert f"{root}: cut off from 5" in mounted.log()
    assert clients.read(root / "etc/motd") == FILES["etc/motd"]
    with pytest.raises(OSError, match="not connected"):
        clients.read(root / "other")
    assert way.split(maxsplit=1)[1] == f"layerfs status --heal --store {mounted.store} has the rest here"
    command("status", "--heal", "--store", mounted.store)
    for name, content in FILES.items():
        assert clients.read(root / name) == content


def test_force_ends_a_daemon_that_does_not_answer(mounted: Daemon) -> None:
    """It has been stopped: whoever looks into the mount waits, and nothing else than this helps."""
    os.kill(mounted.process.pid, signal.SIGSTOP)
    try:
        with clients.started("ls", mounted.images / "example.com") as waiting:
            clients.wait_until_blocked(waiting)
            done = daemon.layerfs("umount", "--force", "--lazy", mounted.mountpoint)
            assert done.stderr == ""
            assert mounts.mount_at(mounted.mountpoint) is None
            assert clients.finish(waiting).returncode != 0
    finally:
        os.kill(mounted.process.pid, signal.SIGCONT)
    assert mounted.process.wait(60) == 0


@pytest.mark.long
def test_a_mount_for_lazy_overlays_alone_is_no_other(tmp_path: Path, pushed: Tag) -> None:
    place = Place(tmp_path)
    (tmp_path / "layerfs.toml").write_text(f'background = "never"\n[log]\nfile = "{tmp_path / "log"}"\n')
    root = place.target("a")
    try:
        assert place.overlay(pushed, root).returncode == 0
        pid = parse_status(clients.read(place.bell / ".layerfs/status.json")).pid
        said = daemon.layerfs("umount", place.bell).stderr
        assert f"layerfs: {place.bell}: unmounted; its daemon (pid {pid}) goes on until these" in said
        assert clients.read(root / "large") == FILES["large"]
    finally:
        mounts.clear(root)
        mounts.clear(place.bell)
    clients.wait_until(lambda: not Path(f"/proc/{pid}").exists())
