"""`layerfs mount` and `layerfs umount` as users and init systems run them."""

import base64
import json
import os
import pty
import re
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support import clients, daemon, images, mounts
from tests.support.faulty_registry import PASSWORD, USER, FaultyRegistry
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


def test_mount_returns_once_the_mount_answers_and_umount_undoes_it(store: Path, mountpoint: Path) -> None:
    log = mountpoint.with_name("log")
    try:
        done = daemon.layerfs("mount", "--store", store, "--log-file", log, mountpoint)
        assert daemon.answers(mountpoint)
        assert done.stdout + done.stderr == ""

        daemon.layerfs("umount", mountpoint)
        assert mounts.mount_at(mountpoint) is None
    finally:
        mounts.clear(mountpoint)


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        pytest.param("missing", "not a directory", id="no such directory"),
        pytest.param("file", "not a directory", id="a file"),
    ],
)
def test_a_mount_that_cannot_be_fails_and_says_why(
    tmp_path: Path, store: Path, target: str, complaint: str
) -> None:
    (tmp_path / "file").touch()

    done = daemon.layerfs("mount", "--store", store, tmp_path / target, check=False)

    assert done.returncode != 0
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_cannot_be_made_fails_the_mount(tmp_path: Path, mountpoint: Path) -> None:
    (tmp_path / "file").touch()
    log = tmp_path / "log"

    done = daemon.layerfs("mount", "--store", tmp_path / "file", "--log-file", log, mountpoint, check=False)

    assert done.returncode != 0
    assert str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr
    assert mounts.mount_at(mountpoint) is None


def test_umount_of_nothing_fails_and_says_so(mountpoint: Path) -> None:
    done = daemon.layerfs("umount", mountpoint, check=False)

    assert done.returncode != 0
    assert str(mountpoint) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_unmounts_and_ends_the_daemon_well(store: Path, mountpoint: Path, number: int) -> None:
    with daemon.running(store, mountpoint) as running:
        assert running.stop(number) == 0, running.log()

        assert mounts.mount_at(mountpoint) is None
        assert "Traceback" not in running.log()


def test_a_signal_also_ends_a_daemon_in_the_background(store: Path, mountpoint: Path) -> None:
    log = mountpoint.with_name("log")
    try:
        daemon.layerfs("mount", "--store", store, "--log-file", log, mountpoint)
        pid = json.loads(clients.read(mountpoint / ".layerfs/status.json"))["pid"]

        os.kill(pid, signal.SIGTERM)

        clients.wait_until(lambda: not clients.runs(pid))
        assert mounts.mount_at(mountpoint) is None
    finally:
        mounts.clear(mountpoint)


def test_sighup_is_no_end_of_a_service(store: Path, mountpoint: Path) -> None:
    log = mountpoint.with_name("log")
    try:
        daemon.layerfs("mount", "--store", store, "--log-file", log, mountpoint)
        pid = json.loads(clients.read(mountpoint / ".layerfs/status.json"))["pid"]
        _hang_up(pid, mountpoint)
    finally:
        mounts.clear(mountpoint)


def test_sighup_is_no_end_in_the_foreground_of_no_terminal(store: Path, mountpoint: Path) -> None:
    with daemon.running(store, mountpoint) as running:  # in a session of its own, as under systemd
        _hang_up(running.pid, mountpoint)
        assert running.stop() == 0


def _hang_up(pid: int, mountpoint: Path) -> None:
    caught = re.search(r"SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    assert caught is not None
    assert int(caught[1], 16) & 1 << signal.SIGHUP - 1
    os.kill(pid, signal.SIGHUP)
    assert daemon.answers(mountpoint)


def test_a_mount_in_the_foreground_ends_with_its_terminal(store: Path, mountpoint: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(daemon.LAYERFS[0], [*daemon.LAYERFS, "mount", "-f", "--store", str(store), str(mountpoint)])
    try:
        clients.wait_until(lambda: daemon.answers(mountpoint))
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert mounts.mount_at(mountpoint) is None
    finally:
        mounts.clear(mountpoint)


def test_ctrl_c_ends_a_mount_that_does_not_answer_yet(store: Path, mountpoint: Path) -> None:
    command = [*daemon.LAYERFS, "mount", "--store", str(store), "--log-file", str(mountpoint) + ".log"]
    with subprocess.Popen([*command, str(mountpoint)], env=daemon.clean_environment()) as process:
        clients.wait_until(lambda: bool(_children(process.pid)) or process.poll() is not None)
        (child,) = _children(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 128 + signal.SIGINT
    clients.wait_until(lambda: not clients.runs(child))
    assert mounts.mount_at(mountpoint) is None


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_umount_ends_a_daemon_in_the_foreground(store: Path, mountpoint: Path) -> None:
    with daemon.running(store, mountpoint) as running:
        daemon.layerfs("umount", mountpoint)

        assert running.wait() == 0, running.log()


def test_option_and_variable_name_the_store_alike(tmp_path: Path, mountpoint: Path) -> None:
    for name, arguments, variable in (
        ("by-option", ["--store", tmp_path / "by-option"], None),
        ("by-variable", [], tmp_path / "by-variable"),
    ):
        try:
            daemon.layerfs(
                "mount", *map(str, arguments), "--log-file", tmp_path / "log", mountpoint, store=variable
            )
            assert (tmp_path / name).is_dir()
            daemon.layerfs("umount", mountpoint)
        finally:
            mounts.clear(mountpoint)


def test_the_mount_is_read_only_and_has_no_devices_and_no_setuid(store: Path, mountpoint: Path) -> None:
    with daemon.running(store, mountpoint):
        mount = mounts.mount_at(mountpoint)

        assert mount is not None
        assert mount.options >= {"ro", "nosuid", "nodev"}


def test_mount_replaces_a_dead_mount(store: Path, mountpoint: Path) -> None:
    with daemon.running(store, mountpoint) as first:
        first.kill()
        with pytest.raises(OSError, match="endpoint is not connected"):
            os.listdir(mountpoint)

        with daemon.running(store, mountpoint):
            assert "images" in clients.names(mountpoint)


def test_a_container_on_the_lowerdirs_survives_the_daemon(
    registry: Registry, store: Path, mountpoint: Path, tmp_path: Path
) -> None:
    busybox = images.file("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755)
    base = images.layer(images.directory("bin"), busybox, images.file("old"))
    top = images.layer(images.whiteout("old"), images.file("new", b"still here"))
    reference = registry.push("e2e/survivor", "latest", images.image(base, top))
    with daemon.running(store, mountpoint) as running:
        lowerdir = clients.read(running.images / str(reference) / "lowerdir").decode()
        with mounts.overlay(lowerdir, tmp_path / "container") as merged:
            running.kill()
            mounts.clear(mountpoint)

            said = subprocess.run(
                ["chroot", merged, "/bin/busybox", "cat", "/new"], capture_output=True, check=True
            )

            assert said.stdout == b"still here"
            assert sorted(os.listdir(merged)) == ["bin", "new"]


def test_a_credential_file_is_found_from_where_the_user_is(
    faulty: FaultyRegistry, store: Path, mountpoint: Path
) -> None:
    """The daemon works in ``/``; what the environment names counts from where it was started."""
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    repository = faulty.push("a/b", "1", images.image(images.layer(images.file("a", b"a"))))
    faulty.faults.auth = "basic"
    root = Path(__file__).parents[2]  # where it is started
    (root / ".cache").mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=root / ".cache") as file:
        json.dump({"auths": {faulty.host: {"auth": auth}}}, file)
        file.flush()
        relative = {"REGISTRY_AUTH_FILE": os.path.relpath(file.name, root)}
        with daemon.running(store, mountpoint, environment=relative) as running:
            assert clients.read(running.images / f"{repository}:1" / "layers/00/diff/a") == b"a"
