"""Says which mounts and processes a test session left behind. Linux only, reads /proc.

A daemon that left its process group is found by a variable in its environment, a worker with a clean
environment as a descendant or by its command line.
"""

import os
import secrets
import time
from pathlib import Path

SESSION_VARIABLE = "LAYERFS_TEST_SESSION"
_GRACE_SECONDS = 30.0
_MOUNTPOINT_FIELD = 4


class Watch:
    """Remembers what was there when it was made; `left_over` tells the difference."""

    def __init__(self, directory: Path) -> None:
        self._directory = os.fsencode(directory) + b"/"  # not those of pytest-10 for pytest-1
        self._token = f"{SESSION_VARIABLE}={secrets.token_hex(8)}".encode()
        os.environ[SESSION_VARIABLE] = self._token.decode().partition("=")[2]
        self._before = set(self._ours())

    def left_over(self) -> list[str]:
        """Describe, a line each, mounts and processes of this session that do not end by themselves."""
        deadline = time.monotonic() + _GRACE_SECONDS
        while (found := self._found()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def _found(self) -> list[str]:
        mounts = [f"mount {os.fsdecode(path)}" for path in mountpoints() if self._directory in path]
        processes = [f"process {pid}: {_command(pid)!r}" for pid in self._ours() if pid not in self._before]
        return mounts + processes

    def _ours(self) -> list[int]:
        own = os.getpid()
        parents = {pid: _parent(pid) for pid in _processes()}
        found = []
        for pid in parents:
            ancestors = _ancestors(pid, parents)
            marked = self._token in _read(pid, "environ").split(b"\0") or self._directory in _command(pid)
            if pid != own and (own in ancestors or (marked and pid not in _ancestors(own, parents))):
                found.append(pid)
        return found


def mountpoints() -> list[bytes]:
    """Return all mountpoints of this mount namespace, as /proc/self/mountinfo spells them."""
    lines = Path("/proc/self/mountinfo").read_bytes().split(b"\n")[:-1]
    return [line.split(b" ")[_MOUNTPOINT_FIELD] for line in lines]


def descendants(pid: int) -> list[int]:
    """Return the processes that *pid* has started, directly or not, and that have not ended."""
    parents = {each: _parent(each) for each in _processes()}
    return [each for each in parents if pid in _ancestors(each, parents)]


def command(pid: int) -> list[bytes]:
    """Return the command line of a process, empty if it has ended."""
    return _read(pid, "cmdline").split(b"\0")


def _processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]


def _ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    found: set[int] = set()
    while (pid := parents.get(pid, 0)) and pid not in found:
        found.add(pid)
    return found


def _parent(pid: int) -> int:
    # The command in the second field may hold spaces and brackets; zombies count as ended.
    state, _, rest = _read(pid, "stat").rpartition(b")")[2].strip().partition(b" ")
    return int(rest.split(b" ")[0]) if state and state != b"Z" else 0


def _command(pid: int) -> bytes:
    return _read(pid, "cmdline").replace(b"\0", b" ").strip()


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
