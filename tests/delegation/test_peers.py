"""Who asks, as the kernel says: a process that may do something else than the daemon is told from it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerfs.delegation import peers

_WAITS = ["sh", "-c", "echo; read line"]
_CALL = """
import ctypes, struct
call = ctypes.CDLL(None).prctl
{}
print(flush=True)
input()
"""
_LESS = _CALL.format("assert call(24, 21, 0, 0, 0) == 0")
"""PR_CAPBSET_DROP of CAP_SYS_ADMIN: what a program that it starts cannot have any more."""
_FILTERED = _CALL.format("""
allow = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000), 8)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 1, ctypes.addressof(allow)), 16)
assert call(22, 2, program, 0, 0) == 0
""")
"""PR_SET_SECCOMP with a filter of one instruction, as of a unit with RestrictAddressFamilies=."""

OTHERS = {
    "another mnt namespace": ["unshare", "--mount"],
    "another net namespace": ["unshare", "--net"],
    "another user namespace": ["unshare", "--user", "--map-root-user"],
    "another Uid of /proc/PID/status": ["setpriv", "--ruid=1"],
    "another Gid of /proc/PID/status": ["setpriv", "--regid=1", "--keep-groups"],
    "another Groups of /proc/PID/status": ["setpriv", "--groups=1,2,3"],
    "another CapEff of /proc/PID/status": ["setpriv", "--bounding-set=-sys_admin"],
    "another CapBnd of /proc/PID/status": [sys.executable, "-c", _LESS],
    "another NoNewPrivs of /proc/PID/status": ["setpriv", "--no-new-privs"],
    "another Seccomp of /proc/PID/status": [sys.executable, "-c", _FILTERED],
}


@contextmanager
def running(prefix: list[str]) -> Iterator[int]:
    """Run a process that waits; yield its pid."""
    argv = [*prefix, *_WAITS]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.pid
        process.communicate(b"\n")


def test_a_process_that_is_as_this_one_may_ask() -> None:
    assert peers.difference(os.getpid()) == ""
    with running([]) as pid:
        assert peers.difference(pid) == ""


@pytest.mark.needs_root
@pytest.mark.parametrize("why", OTHERS)
def test_what_a_process_has_else_is_named(why: str) -> None:
    with running(OTHERS[why]) as pid:
        assert peers.difference(pid) == why


@pytest.mark.needs_root
def test_a_process_in_another_root_directory_is_told_from_this_one(tmp_path: Path) -> None:
    shutil.copy("/bin/busybox", tmp_path)
    with running(["chroot", str(tmp_path), "/busybox"]) as pid:
        assert peers.difference(pid) == "another root directory"


def test_one_that_has_ended_may_not() -> None:
    with running([]) as pid:
        pass
    assert peers.difference(pid).startswith("cannot be looked at")


@pytest.mark.needs_root
def test_a_service_that_may_do_less_pulls_for_who_may_do_more() -> None:
    """As the units of the Debian package do, which have NoNewPrivileges= and a filter."""
    code = "import sys; from layerfs.delegation import peers; print(peers.difference(int(sys.argv[1])))"
    with running([]) as pid:
        argv = ["setpriv", "--no-new-privs", sys.executable, "-c", code, str(pid)]
        assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "\n"
