"""A wait ends by a signal to its caller, at once, and ends nothing but that wait."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fuse.conftest import PATIENCE, Edge, edge_at, started, wait_until

pytestmark = [pytest.mark.needs_fuse]

WAITING = [
    pytest.param(["cat", "slow/file-0"], "file-0", id="open"),
    pytest.param(["ls", "slow/directory-0"], "directory-0", id="opendir"),
    pytest.param(["cat", "slow/directory-0/inside"], "directory-0", id="lookup"),
    pytest.param(["readlink", "slow/link-0"], "link-0", id="readlink"),
    pytest.param(["cat", "slow/link-0"], "link-0", id="following a link"),
]

HANDLER = """
import signal, sys
signal.signal(signal.SIGINT, lambda *_: print("handled", flush=True) or sys.exit(3))
print("started", flush=True)
open(sys.argv[1]).read()
"""

IGNORING = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
signal.signal(signal.SIGWINCH, lambda *_: None)
signal.signal(signal.SIGURG, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
sys.stdout.write(open(sys.argv[1]).read())
"""

THREADS = """
import ctypes, os, signal, sys, threading
signal.signal(signal.SIGUSR1, lambda *_: None)
def read(path):
    try:
        print(os.path.basename(path), open(path).read().strip(), flush=True)
    except OSError as error:
        print(os.path.basename(path), error.errno, flush=True)
other = threading.Thread(target=read, args=(sys.argv[2],))
other.start()
print(other.native_id, flush=True)
other.join()
"""


def wait_for_waits(edge: Edge, number: int) -> None:
    wait_until(lambda: edge.stats()["waits"] == number)


def command_in(edge: Edge, command: list[str]) -> list[str]:
    return [command[0], str(edge.root / command[1])]


@pytest.mark.parametrize(("command", "need"), WAITING)
def test_a_wait_ends_when_its_need_is_met(edge: Edge, command: list[str], need: str) -> None:
    with started(command_in(edge, command)) as process:
        wait_for_waits(edge, 1)
        assert process.poll() is None
        edge.meet(need)
        assert process.wait(PATIENCE) == 0
    wait_for_waits(edge, 0)


def test_every_fatal_signal_ends_every_kind_of_wait(edge: Edge) -> None:
    for command, _ in (parameter.values for parameter in WAITING):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGQUIT, signal.SIGHUP):
            assert isinstance(command, list)
            with started(command_in(edge, command)) as process:
                wait_for_waits(edge, 1)
                process.send_signal(number)
                assert process.wait(PATIENCE) == -number
            wait_for_waits(edge, 0)


def test_a_caught_signal_reaches_its_handler(edge: Edge) -> None:
    with started([sys.executable, "-c", HANDLER, edge.root / "slow" / "file-0"]) as process:
        wait_for_waits(edge, 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 3


def test_ignored_blocked_and_everyday_signals_end_no_wait(edge: Edge) -> None:
    with started([sys.executable, "-c", IGNORING, edge.root / "slow" / "file-0"]) as process:
        wait_for_waits(edge, 1)
        for number in (
            signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGURG, signal.SIGUSR1,
        ):  # fmt: skip
            process.send_signal(number)
        time.sleep(0.5)  # several sweeps
        assert process.poll() is None
        edge.meet("file-0")
        out, _ = process.communicate(timeout=PATIENCE)
        assert out == b"fetched\n"


def test_a_signal_to_one_waiter_leaves_the_others_waiting(edge: Edge) -> None:
    path = str(edge.root / "slow" / "file-0")
    with started(["cat", path]) as stays, started(["cat", path]) as leaves:
        wait_for_waits(edge, 2)
        leaves.terminate()
        assert leaves.wait(PATIENCE) == -signal.SIGTERM
        wait_for_waits(edge, 1)
        assert stays.poll() is None
        edge.meet("file-0")
        out, _ = stays.communicate(timeout=PATIENCE)
        assert out == b"fetched\n"


def test_a_signal_to_one_thread_leaves_its_sibling_waiting(edge: Edge) -> None:
    paths = [edge.root / "slow" / "file-0", edge.root / "slow" / "file-1"]
    code = THREADS.replace("other.join()", "threading.Thread(target=read, args=(sys.argv[1],)).start()")
    with started([sys.executable, "-u", "-c", code, *paths]) as process:
        assert process.stdout is not None
        other = int(process.stdout.readline())
        wait_for_waits(edge, 2)
        _tgkill(process.pid, other, signal.SIGUSR1)
        time.sleep(0.5)  # several sweeps
        edge.meet("file-0")
        assert process.stdout.readline() == b"file-0 fetched\n"
        edge.meet("file-1")
        assert process.stdout.readline() == b"file-1 fetched\n"  # Python asks again after EINTR


def _tgkill(pid: int, tid: int, number: int) -> None:
    from layerfs.host.libc import call

    call("tgkill", pid, tid, int(number))


def test_while_someone_waits_everything_ready_is_answered(edge: Edge) -> None:
    slow = edge.root / "slow"
    with started(["cat", slow / "file-0"]) as one, started(["ls", slow / "directory-1"]) as two:
        wait_for_waits(edge, 2)
        assert "ready" in os.listdir(slow)
        assert (slow / "ready").read_bytes() == b"ready\n"
        assert (slow / "file-1").stat().st_size == 8
        assert (slow / "directory-2").is_dir()
        assert one.poll() is None
        assert two.poll() is None
        edge.meet("file-0")
        edge.meet("directory-1")
        assert (one.wait(PATIENCE), two.wait(PATIENCE)) == (0, 0)


def test_two_hundred_waiters_on_one_need_all_get_the_bytes(edge: Edge) -> None:
    path = edge.root / "slow" / "file-0"
    with ThreadPoolExecutor(200) as pool:
        results = [pool.submit(path.read_bytes) for _ in range(200)]
        wait_for_waits(edge, 200)
        assert (edge.root / "plain" / "hello").read_bytes() == b"hello\n"
        edge.meet("file-0")
        assert {result.result(PATIENCE) for result in results} == {b"fetched\n"}
    assert edge.stats()["waits"] == 0


def test_many_who_waited_for_a_large_file_share_one_descriptor(edge: Edge) -> None:
    path = edge.root / "slow" / "large"
    expected = (edge.control / "scratch" / "big").read_bytes()
    with ThreadPoolExecutor(20) as pool:
        results = [pool.submit(path.read_bytes) for _ in range(20)]
        wait_for_waits(edge, 20)
        before = len(os.listdir(f"/proc/{edge.daemon.pid}/fd"))
        edge.meet("large")
        assert all(result.result(PATIENCE) == expected for result in results)
    wait_until(lambda: edge.stats()["files"] == 0)
    assert len(os.listdir(f"/proc/{edge.daemon.pid}/fd")) <= before


def test_a_wait_has_a_deadline(tmp_path: Path) -> None:
    with edge_at(tmp_path, "--fetch-timeout", "0.3") as edge:
        with pytest.raises(TimeoutError):
            (edge.root / "slow" / "file-0").read_bytes()
        edge.meet("file-0")
        assert (edge.root / "slow" / "file-0").read_bytes() == b"fetched\n"


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        pytest.param("NotFound", "No such file", id="not found"),
        pytest.param("Denied", "Permission denied", id="denied"),
        pytest.param("Unreachable", "No route to host", id="unreachable"),
        pytest.param("DigestMismatch", "Input/output error", id="wrong bytes"),
        pytest.param("bug", "Input/output error", id="a bug"),
    ],
)
def test_a_need_that_cannot_be_met_is_told_and_asked_again(edge: Edge, failure: str, error: str) -> None:
    edge.meet("file-0", failure)
    done = subprocess.run(["cat", edge.root / "slow" / "file-0"], capture_output=True, text=True)
    assert error in done.stderr
    edge.meet("file-0")
    assert (edge.root / "slow" / "file-0").read_bytes() == b"fetched\n"
    if failure not in ("NotFound",):
        assert ("ZeroDivisionError" if failure == "bug" else failure) in edge.daemon.log()


def test_a_daemon_that_ends_frees_its_waiters_and_the_mountpoint(edge: Edge) -> None:
    with started(["cat", edge.root / "slow" / "file-0"]) as process:
        wait_for_waits(edge, 1)
        assert edge.daemon.stop() == 0
        assert process.wait(PATIENCE) == 1
    assert not os.path.ismount(edge.root)


@pytest.mark.needs_root
def test_a_caller_in_a_pid_namespace_of_its_own_is_interrupted_too(edge: Edge) -> None:
    inside = 'cat "$1" & echo $!; wait $!; echo ended $?'
    command = ["unshare", "--pid", "--fork", "--mount-proc", "bash", "-c", inside, "bash"]
    with started([*command, edge.root / "slow" / "file-0"]) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) < 100  # a number of the inner namespace
        wait_for_waits(edge, 1)
        subprocess.run(["pkill", "-TERM", "-f", f"cat {edge.root / 'slow' / 'file-0'}$"], check=True)
        assert process.stdout.readline() == b"ended 143\n"
        assert process.wait(PATIENCE) == 0
