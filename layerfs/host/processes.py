"""What other processes are up to: whether one lives, and whether a waiting one got a signal to end its wait.

By /proc, read through kept descriptors: the kernel edge's sweeper asks many times a second.
"""

import os
from functools import cache
from signal import SIGALRM, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2
from typing import Final

ENDING_SIGNALS: Final = (SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGALRM, SIGUSR1, SIGUSR2)
"""Signals that end a wait unless blocked or ignored.

Not URG, CHLD, WINCH, PROF, IO and the like: runtimes use them all the time (Go preempts by URG), and their
programs would see EINTR where they never expect it.
"""

_STAT_BYTES: Final = 256


def _mask(*numbers: int) -> int:
    return sum(1 << (number - 1) for number in numbers)


_ENDING: Final = _mask(*ENDING_SIGNALS)
_KILL: Final = _mask(SIGKILL)
_FIELDS: Final = (b"SigPnd:", b"ShdPnd:", b"SigBlk:", b"SigIgn:")


def should_end(status: bytes) -> bool:
    """Say whether the text of ``/proc/<tid>/status`` shows a pending signal that ends a wait.

    A default-fatal signal shows as SIGKILL pending for the thread, a caught one as itself.
    """
    fields = dict.fromkeys(_FIELDS, 0)
    for line in status.split(b"\n"):
        name, _, value = line.partition(b"\t")
        if name in fields:
            fields[name] = int(value, 16)
    pending, shared, blocked, ignored = fields.values()
    pending |= shared
    return bool(pending & _KILL or pending & _ENDING & ~blocked & ~ignored)


@cache
def proc_is_ours() -> bool:
    """Say whether /proc shows our pid namespace, so that the pids of requests mean the same there."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def pid_namespace() -> str:
    """Name the pid namespace of this process; empty if /proc does not show it."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def start_time(pid: int) -> int | None:
    """Return when a process was started, in clock ticks since the boot; None if there is none.

    With the pid it names one process (proc_pid_stat(5), field 22). A zombie has ended, unless its first
    thread alone is one.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            stat = file.readall()
        fields = stat[stat.rfind(b")") + 2 :].split()  # the name before may hold anything
        if fields[0] in (b"Z", b"X") and len(os.listdir(f"/proc/{pid}/task")) < 2:
            return None
    except OSError:
        return None
    return int(fields[19])


class Caller:
    """The thread that waits for a request, watched through one descriptor, kept if there are enough.

    *pid* 0 stands for a thread that this pid namespace does not have: it is never seen interrupted.
    """

    __slots__ = ("_fd", "_keep", "_pid")

    def __init__(self, pid: int, *, keep: bool = True) -> None:
        self._pid = pid if pid > 0 and proc_is_ours() else 0
        self._fd = -1
        self._keep = keep

    def is_interrupted(self) -> bool:
        """Say whether the thread is gone or has a pending signal that should end its system call."""
        if not self._pid:
            return False
        try:
            if self._is_asleep():
                return False
            with open(f"/proc/{self._pid}/status", "rb", buffering=0) as file:
                return should_end(file.readall())
        except (FileNotFoundError, ProcessLookupError):
            return True
        except OSError:
            return False

    def _is_asleep(self) -> bool:
        # State S: FUSE still waits interruptibly, so no signal came for this thread; any signal makes it D.
        # Reading this first costs a third, and does not blame a thread for its sibling's signal.
        if self._fd < 0:
            self._fd = os.open(f"/proc/{self._pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        stat = os.pread(self._fd, _STAT_BYTES, 0)
        if not self._keep:
            self.close()
        end = stat.rfind(b")")  # the name before may hold anything
        return stat[end + 2 : end + 3] == b"S"

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
