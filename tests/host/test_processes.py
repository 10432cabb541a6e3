"""Which pending signals end a wait: those a user sends to end it, and no everyday ones."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from layerfs.host.processes import Caller, proc_is_ours, should_end, start_time
from tests.support.clients import wait_until

KILL, INT, TERM, URG, WINCH, USR1, TSTP = (
    1 << (number - 1)
    for number in (
        signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGURG, signal.SIGWINCH, signal.SIGUSR1,
        signal.SIGTSTP,
    )
)  # fmt: skip


def status(pending: int = 0, shared: int = 0, blocked: int = 0, ignored: int = 0) -> bytes:
    masks = zip(("SigPnd", "ShdPnd", "SigBlk", "SigIgn"), (pending, shared, blocked, ignored), strict=True)
    return b"Name:\tcat\n" + b"".join(b"%s:\t%016x\n" % (name.encode(), mask) for name, mask in masks)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        pytest.param(status(), False, id="nothing pending"),
        pytest.param(status(pending=KILL), True, id="killed, or a fatal default"),
        pytest.param(status(pending=KILL, blocked=KILL, ignored=KILL), True, id="kill cannot be refused"),
        pytest.param(status(shared=INT), True, id="Ctrl-C that is caught"),
        pytest.param(status(pending=USR1), True, id="to the thread"),
        pytest.param(status(shared=TERM, blocked=TERM), False, id="blocked"),
        pytest.param(status(shared=TERM, ignored=TERM), False, id="ignored"),
        pytest.param(status(shared=URG | WINCH), False, id="what runtimes send themselves"),
        pytest.param(status(shared=TSTP), False, id="Ctrl-Z"),
        pytest.param(status(shared=URG | INT, ignored=URG), True, id="one of two"),
        pytest.param(b"", False, id="nothing to read"),
    ],
)
def test_a_pending_signal_ends_a_wait_or_not(text: bytes, ends: bool) -> None:
    assert should_end(text) is ends


def test_the_text_is_that_of_this_kernel() -> None:
    with open("/proc/self/status", "rb") as file:
        text = file.read()
    assert all(name in text for name in (b"SigPnd:\t", b"ShdPnd:\t", b"SigBlk:\t", b"SigIgn:\t"))
    assert not should_end(text)


def test_a_sleeping_process_is_not_interrupted_and_a_dead_one_is() -> None:
    process = subprocess.Popen(["sleep", "60"])
    caller = Caller(process.pid)
    try:
        wait_until(lambda: not caller.is_interrupted())  # until it sleeps
        process.kill()
        process.wait()
        assert caller.is_interrupted()
    finally:
        process.kill()
        process.wait()
        caller.close()


def test_a_caller_of_another_namespace_is_never_interrupted() -> None:
    caller = Caller(0)
    assert not caller.is_interrupted()
    caller.close()


def test_a_caller_keeps_one_descriptor_and_gives_it_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    caller = Caller(os.getpid())
    for _ in range(3):
        caller.is_interrupted()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    caller.close()
    caller.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_caller_that_may_keep_none_keeps_none() -> None:
    before = len(os.listdir("/proc/self/fd"))
    caller = Caller(os.getpid(), keep=False)
    for _ in range(3):
        caller.is_interrupted()
        assert len(os.listdir("/proc/self/fd")) == before


def test_proc_is_ours_here() -> None:
    assert proc_is_ours()


_FIRST_THREAD_ENDS = """
import ctypes, threading
threading.Thread(target=input).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_lives_until_its_last_thread_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", _FIRST_THREAD_ENDS], stdin=subprocess.PIPE) as process:
        started = start_time(process.pid)
        state = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: state.read_text().rpartition(") ")[2][0] == "Z")
        assert start_time(process.pid) == started is not None
        process.kill()
        wait_until(lambda: start_time(process.pid) is None)  # nobody has waited for it yet
        assert state.exists()
