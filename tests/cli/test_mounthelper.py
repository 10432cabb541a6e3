"""mount.fuse.layerfs as mount(8) calls it: which words mean what, and with which code it ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from layerfs.cli import mounthelper
from layerfs.errors import InvalidSettings, UsageError
from tests.support import daemon, mounts

_HELPER = [sys.executable, "-c", "from layerfs.cli.mounthelper import main; main()"]
_FSTAB = "ro,_netdev,nofail,user,noauto,x-systemd.automount,comment=systemd.automount,x-gvfs-hide"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(["none", "/m"], ["mount", "-ofsname=none", "--", "/m"], id="the least"),
        pytest.param(
            ["none", "/m", "-o", "ro,config=/etc/a.toml,offline"],
            ["--config", "/etc/a.toml", "mount", "-ofsname=none,ro,offline", "--", "/m"],
            id="a configuration",
        ),
        pytest.param(
            ["none", "/m", "-t", "fuse.layerfs", "-o", _FSTAB],
            ["mount", f"-ofsname=none,{_FSTAB}", "--", "/m"],
            id="all that fstab lines have",
        ),
        pytest.param(
            ["/srv/store", "/m"], ["mount", "-ofsname=/srv/store,store=/srv/store", "--", "/m"], id="a store"
        ),
        pytest.param(
            ["oci:/srv/i", "/m"], ["mount", "-ofsname=oci:/srv/i", "--", "oci:/srv/i", "/m"], id="an image"
        ),
        pytest.param(["oci:/a,b", "/m"], ["mount", "--", "oci:/a,b", "/m"], id="no name of a source"),
        pytest.param(
            ["a:b", "/m", "-snv", "-oro,nonsense"],
            ["mount", "-ofsname=a:b,ro", "--", "a:b", "/m"],
            id="sloppy",
        ),
        pytest.param(["none", "/m", "-rw"], ["mount", "-ofsname=none", "--", "/m"], id="-r and -w"),
        pytest.param(["none", "-x"], None, id="an option that nobody knows"),
        pytest.param(["none"], None, id="no directory"),
        pytest.param(["none", "/m", "more"], None, id="too much"),
        pytest.param(["none", "/m", "-N", "/proc/1/ns/mnt"], None, id="another namespace"),
        pytest.param(["none", "/m", "-o"], None, id="-o alone"),
        pytest.param(["none", "/m", "-o", "remount,rw"], None, id="remount"),
        pytest.param(["none", "/m", "-o", "nonsense"], None, id="a word that nobody knows"),
        pytest.param(["none", "/m", "-o", "config="], None, id="no file"),
    ],
)
def test_a_call_of_mount_is_read_as_one_of_layerfs(arguments: list[str], line: list[str] | None) -> None:
    if line is None:
        with pytest.raises((UsageError, InvalidSettings), match="expected"):
            mounthelper.command_line(mounthelper.parse(arguments))
    else:
        assert mounthelper.command_line(mounthelper.parse(arguments)) == line


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(["none", "{}", "-o", "nonsense"], mounthelper.USAGE, id="usage"),
        pytest.param(["none", "{}", "-o", "config=/nowhere/config.toml"], mounthelper.USAGE, id="no file"),
        pytest.param(["none", "{}/missing"], mounthelper.FAILED, id="no directory"),
        pytest.param(["none", "{}", "-f"], 0, id="only pretended"),
    ],
)
def test_the_codes_are_those_of_mount(tmp_path: Path, arguments: list[str], code: int) -> None:
    arguments = [word.format(tmp_path) for word in arguments]
    environment = daemon.clean_environment() | {"LAYERFS_STORE": str(tmp_path / "store")}

    done = subprocess.run([*_HELPER, *arguments], env=environment, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (code, "")
    assert bool(done.stderr) == bool(code)
    assert "Traceback" not in done.stderr


@pytest.mark.needs_root
@pytest.mark.needs_fuse
def test_a_line_of_fstab_mounts_and_findmnt_and_umount_know_the_mount(
    tmp_path: Path, store: Path, mountpoint: Path
) -> None:
    configuration = tmp_path / "config.toml"
    configuration.write_text(f'store = "{store}"\nlog.file = "{tmp_path}/log"\n')
    words = f"{_FSTAB},noatime,config={configuration}"
    environment = daemon.clean_environment() | {"HOME": str(tmp_path)}
    command = [*_HELPER, "none", str(mountpoint), "-n", "-t", "fuse.layerfs", "-o", words]
    try:
        subprocess.run(command, env=environment, check=True)
        assert daemon.answers(mountpoint)
        again = subprocess.run(command, env=environment, capture_output=True, text=True)
        shown = subprocess.run(
            ["findmnt", "-no", "SOURCE,FSTYPE,OPTIONS", mountpoint],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        subprocess.run(["umount", mountpoint], check=True)
        assert mounts.mount_at(mountpoint) is None
    finally:
        mounts.clear(mountpoint)

    assert again.returncode == mounthelper.FAILED
    assert "a layerfs mount is there already" in again.stderr
    assert shown[:2] == ["none", "fuse.layerfs"]
    assert {"ro", "nosuid", "nodev", "noatime"} <= {*shown[2].split(",")}
