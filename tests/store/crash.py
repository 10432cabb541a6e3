"""Kills a process at its n-th system call: ptrace(2) by hand, because a fresh strace for each point is slow.

The work runs in a forked child, stopped at each entry into the kernel; at the chosen one it dies by
SIGKILL with all its descendants, before the call takes effect. x86-64 and arm64, Linux.
"""

import ctypes
import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_LIBC.ptrace.restype = ctypes.c_long

_TRACEME, _CONT, _SYSCALL, _SETOPTIONS = 0, 7, 24, 0x4200
_SYSGOOD, _FORK, _VFORK, _CLONE, _EXEC, _EXITKILL = 0x1, 0x2, 0x4, 0x8, 0x10, 0x100000
_WALL: Final = 0x40000000
_STOP_OF_A_CALL: Final = signal.SIGTRAP | 0x80


@dataclass(frozen=True, slots=True)
class Run:
    """What became of one run."""

    calls: int
    """System calls that were entered, in all traced processes."""
    killed: bool


def run(work: Callable[[], object], kill_at: int | None = None, *, descendants: bool = False) -> Run:
    """Run *work* in a child and kill it as it enters its system call number *kill_at*, counted from 0.

    With *descendants* their calls count too, and all die together. A child that fails by itself is an
    AssertionError.
    """
    reader, writer = os.pipe()
    # A process of its own: the tracer waits for all its children, and the test runner has others.
    tracer = os.fork()
    if tracer == 0:
        try:
            found = _trace(work, kill_at, descendants)
            os.write(writer, f"{found.calls} {int(found.killed)}".encode())
        except BaseException:  # noqa: BLE001 - a forked child must not run what the test runner wants to
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        numbers = [int(word) for word in answer.read().split()]
    os.waitpid(tracer, 0)
    assert len(numbers) == 2, "the tracer failed (its traceback is on standard error)"
    return Run(numbers[0], killed=bool(numbers[1]))


def _trace(work: Callable[[], object], kill_at: int | None, descendants: bool) -> Run:
    pid = os.fork()
    if pid == 0:
        try:
            _ptrace(_TRACEME, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a forked child must not run what the test runner wants to
            traceback.print_exc()
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    options = _SYSGOOD | _EXITKILL | _EXEC | ((_FORK | _VFORK | _CLONE) if descendants else 0)
    _ptrace(_SETOPTIONS, pid, options)
    _ptrace(_SYSCALL, pid, 0)
    return _Tracer(pid, kill_at).follow()


class _Tracer:
    def __init__(self, pid: int, kill_at: int | None) -> None:
        self._first = pid
        self._kill_at = kill_at
        self._inside: dict[int, bool] = {pid: False}
        self._calls = 0

    def follow(self) -> Run:
        while True:
            try:
                pid, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                return Run(self._calls, killed=True)
            if os.WIFSTOPPED(status):
                self._stopped(pid, os.WSTOPSIG(status), status >> 16)
                continue
            self._inside.pop(pid, None)
            if pid == self._first and os.WIFEXITED(status):
                self._end_descendants()
                assert os.WEXITSTATUS(status) == 0, "the traced child failed by itself"
                return Run(self._calls, killed=False)

    def _stopped(self, pid: int, number: int, event: int) -> None:
        if number == _STOP_OF_A_CALL:
            entering = not self._inside.get(pid, False)
            self._inside[pid] = entering
            if entering:
                if self._calls == self._kill_at:
                    self._kill_all(pid)
                    return
                self._calls += 1
            number = 0
        elif event or number == signal.SIGTRAP or pid not in self._inside:
            self._inside.setdefault(pid, False)  # a new process, or news of one
            number = 0
        _resume(pid, number)

    def _kill_all(self, stopped: int) -> None:
        self._kill_at = None
        for pid in {self._first, stopped, *self._inside}:
            _kill(pid)

    def _end_descendants(self) -> None:
        for pid in list(self._inside):
            _kill(pid)
        while True:
            try:
                pid, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                return
            if os.WIFSTOPPED(status):
                _kill(pid)
                _resume(pid, 0)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _resume(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # killed meanwhile
        _ptrace(_SYSCALL, pid, number)


def _ptrace(request: int, pid: int, data: int) -> None:
    if _LIBC.ptrace(request, pid, None, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
