"""Nothing that goes wrong in one request ends the mount, and a dead mount is replaced."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from layerfs.errors import MountError
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.mounts import is_dead, mounts_at
from tests.fuse.conftest import PATIENCE, Edge, drop_caches, edge_at, started, wait_until
from tests.store.helpers import shared_place
from tests.support import mounts

pytestmark = [pytest.mark.needs_fuse]

PLANTED: list[tuple[str, Callable[[Path], object]]] = [
    ("lookup", lambda broken: (broken / "lookup" / "x").stat()),
    ("opendir", lambda broken: os.listdir(broken / "entries")),
    ("open", lambda broken: (broken / "open").read_bytes()),
    ("readlink", lambda broken: (broken / "readlink").readlink()),
    ("getxattr", lambda broken: os.getxattr(broken / "xattrs", "user.a")),
    ("listxattr", lambda broken: os.listxattr(broken / "xattrs")),
    ("lookup", lambda broken: (broken / "attributes").lstat()),
    ("readdir", lambda broken: os.listdir(broken / "half")),
]


@pytest.mark.parametrize(("operation", "act"), PLANTED)
def test_a_bug_in_a_handler_is_logged_and_answered_with_eio(
    shared_edge: Edge, operation: str, act: Callable[[Path], object]
) -> None:
    with pytest.raises(OSError, match="Input/output") as caught:
        act(shared_edge.root / "broken")
    assert caught.value.errno == errno.EIO
    assert f"{operation}: unexpected ZeroDivisionError" in shared_edge.daemon.log()
    assert (shared_edge.root / "plain" / "hello").read_bytes() == b"hello\n"


@pytest.mark.needs_root
def test_a_bug_while_forgetting_is_logged(edge: Edge) -> None:
    (edge.root / "broken" / "forgotten").stat()

    def is_logged() -> bool:
        drop_caches()  # each time: what was in use for a moment stays
        return "forget: unexpected ZeroDivisionError" in edge.daemon.log()

    wait_until(is_logged)
    assert (edge.root / "plain" / "hello").read_bytes() == b"hello\n"


def test_a_need_that_is_never_enough_ends(edge: Edge) -> None:
    edge.meet("endless")
    with pytest.raises(OSError, match="Input/output"):
        (edge.root / "broken" / "endless").read_bytes()
    assert "still needed after 8 rounds" in edge.daemon.log()


def test_killed_callers_do_not_stop_the_loop(tmp_path: Path) -> None:
    # A caller that is killed before its request is read leaves the daemon in a read of nothing.
    client = "import os, sys\nwhile True:\n try: os.stat(sys.argv[1])\n except OSError: pass\n"
    chance = random.Random(7)
    with edge_at(tmp_path, "--beat") as edge:
        for _ in range(60):
            process = subprocess.Popen([sys.executable, "-ISc", client, edge.root / "changing" / "nothing"])
            time.sleep(0.02 + chance.random() / 100)
            process.kill()
            process.wait()
            _wait_for_a_beat(edge, edge.requests.read()["beats"])


def _wait_for_a_beat(edge: Edge, after: int) -> None:
    """Return if the loop of the daemon does not stand still."""
    wait_until(lambda: edge.requests.read()["beats"] > after)


@pytest.mark.needs_root
def test_a_dead_mount_is_recognised_and_cleaned_up(tmp_path: Path) -> None:
    with edge_at(tmp_path) as edge:
        edge.daemon.kill()
        assert is_dead(os.fsencode(edge.root))
        with Mountpoint.open(edge.root) as opened:
            assert opened.clean_up() == 1
        assert mounts_at(edge.root) == []
        assert os.listdir(edge.root) == []


@pytest.mark.needs_root
def test_a_new_daemon_mounts_over_the_dead_one_even_in_use(tmp_path: Path) -> None:
    with edge_at(tmp_path / "first") as first:
        held = os.open(first.root, os.O_RDONLY)
        try:
            first.daemon.kill()
            (tmp_path / "second").mkdir()
            (tmp_path / "second" / "mnt").symlink_to(first.root)
            control = tmp_path / "second" / "control"
            control.mkdir()
            command = [sys.executable, "-m", "tests.support.edge_daemon", str(tmp_path / "second" / "mnt")]
            with started([*command, str(control)]) as process:
                wait_until(lambda: _lists(first.root))
                assert (first.root / "plain" / "hello").read_bytes() == b"hello\n"
                assert len(mounts_at(first.root)) == 1
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE) == 0
        finally:
            os.close(held)
            mounts.clear(first.root)


def _lists(path: Path) -> bool:
    try:
        return bool(os.listdir(path))
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_daemon_unmounts(edge: Edge, number: signal.Signals) -> None:
    assert edge.daemon.stop(number) == 0
    assert mounts_at(edge.root) == []


def test_unmounting_from_outside_ends_the_daemon(edge: Edge) -> None:
    mounts.unmount(edge.root)
    assert edge.daemon.wait() == 0


def test_a_second_daemon_is_refused_and_the_first_goes_on(edge: Edge, tmp_path: Path) -> None:
    control = tmp_path / "again"
    control.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.edge_daemon", edge.root, control],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"{MountError.__name__}: {edge.root}: a layerfs mount is there already" in done.stderr
    assert (edge.root / "plain" / "hello").read_bytes() == b"hello\n"


def test_a_missing_mountpoint_is_told(tmp_path: Path) -> None:
    control = tmp_path / "control"
    control.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.edge_daemon", tmp_path / "nowhere", control],
        capture_output=True,
        text=True,
    )
    assert "not a directory (expected an existing one; mkdir it first)" in done.stderr


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("arguments", "status"),
    [pytest.param((), 1, id="private"), pytest.param(("--allow-other",), 0, id="allow-other")],
)
def test_others_get_in_only_if_allowed(arguments: tuple[str, ...], status: int) -> None:
    with shared_place() as place, edge_at(place, *arguments) as edge:
        done = subprocess.run(["cat", edge.root / "plain" / "hello"], user=65534, capture_output=True)
    assert done.returncode == status
