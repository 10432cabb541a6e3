"""Who asks, as the kernel says: never what a message says of it.

A command that asks has to be to the kernel what the daemon is: the same user, groups and capabilities, in the
same namespaces and below the same root. Then it could do itself, with the same outcome, what is done for it.
"""

import os
import socket
import struct
from typing import Final

_CREDENTIALS: Final = "3i"
"""``struct ucred``, unix(7): pid, uid, gid."""
_NAMESPACES: Final = ("mnt", "net", "user")
_LINES: Final = (b"Uid:", b"Gid:", b"Groups:", b"CapEff:")
"""Lines of ``/proc/PID/status``, proc_pid_status(5)."""


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
        for line, other in zip(_rights(mine), _rights(theirs), strict=True):
            if line != other:
                return f"another {line.partition(b':')[0].decode()} of /proc/PID/status"
        if _label(mine) != _label(theirs):
            return "another label of a security module"
    except (OSError, ValueError) as exc:  # it may not be looked at, or has ended
        return f"cannot be looked at: {exc}"
    return ""


def _rights(process: str) -> list[bytes]:
    with open(f"{process}/status", "rb", buffering=0) as file:
        return [line for line in file.readall().split(b"\n") if line.startswith(_LINES)]


def _label(process: str) -> bytes:
    """Return what SELinux, AppArmor or another module calls a process; nothing where there is none."""
    try:
        with open(f"{process}/attr/current", "rb", buffering=0) as file:
            return file.readall()
    except OSError:
        return b""
