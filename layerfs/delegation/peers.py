"""Who asks, as the kernel says: never what a message says of it.

A command that asks has to be to the kernel what the daemon is: the same user, groups and capabilities, in the
same namespaces and below the same root, and bound by no filter of system calls: two cannot be compared. Then
it could do itself, with the same outcome, what is done for it.
"""

import os
import socket
import struct
from typing import Final

_CREDENTIALS: Final = "3i"
"""``struct ucred``, unix(7): pid, uid, gid."""
_NAMESPACES: Final = ("mnt", "net", "user")
_SAME: Final = ("Uid", "Gid", "Groups", "CapEff", "CapBnd")
"""Lines of ``/proc/PID/status``, proc_pid_status(5)."""
_NO_NEW: Final = "NoNewPrivs"
_FILTER: Final = "Seccomp"


def process_of(link: socket.socket) -> int | None:
    """Return the pid of who connected, if that is this user; None for anybody else."""
    raw = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_CREDENTIALS))
    pid, uid, _ = struct.unpack(_CREDENTIALS, raw)
    return pid if uid == os.geteuid() and pid > 0 else None


def difference(pid: int) -> str:
    """Say in what the process *pid* differs from this one; empty if it may do the same. Blocking."""
    mine, theirs = f"/proc/{os.getpid()}", f"/proc/{pid}"
    try:
        for name in _NAMESPACES:
            if not os.path.samefile(f"{mine}/ns/{name}", f"{theirs}/ns/{name}"):
                return f"another {name} namespace"
        if not os.path.samefile(f"{mine}/root", f"{theirs}/root"):
            return "another root directory"
        if name := _bound(_status(mine), _status(theirs)):
            return f"another {name} of /proc/PID/status"
        if _label(mine) != _label(theirs):
            return "another label of a security module"
    except (OSError, KeyError) as exc:  # it may not be looked at, or has ended
        return f"cannot be looked at: {exc}"
    return ""


def _bound(mine: dict[str, str], theirs: dict[str, str]) -> str:
    """Return the name of what binds them more than me, or otherwise; empty for nothing. Raises KeyError."""
    for name in _SAME:
        if mine[name] != theirs[name]:
            return name
    if theirs[_NO_NEW] > mine[_NO_NEW]:  # who may do more than a service gets no more than it may do
        return _NO_NEW
    return _FILTER if theirs.get(_FILTER, "0") != "0" else ""  # a kernel without filters has no such line


def _status(process: str) -> dict[str, str]:
    with open(f"{process}/status", "rb", buffering=0) as file:
        lines = (line.partition(":") for line in os.fsdecode(file.readall()).split("\n"))
    return {name: value.strip() for name, _, value in lines}


def _label(process: str) -> bytes:
    """Return what SELinux, AppArmor or another module calls a process; nothing where there is none."""
    try:
        with open(f"{process}/attr/current", "rb", buffering=0) as file:
            return file.readall()
    except OSError:
        return b""
