"""Waits of callers: ended by what they wait for, a deadline or a signal, and never ending what others await.

The kernel keeps a caller that got a signal until we reply, even one that was killed (Linux,
Documentation/filesystems/fuse/fuse.rst). So one sweeper looks at all waiting callers.
"""

import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from layerfs.errors import WaitInterrupted, WaitRefused, WaitTimedOut
from layerfs.host.processes import Caller
from layerfs.needs import WAITERS

log = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 0.1
"""Pause between two sweeps over few callers."""

SWEEP_SHARE: Final = 25
"""A pause is at least this many times as long as the last sweep took: 4 % of a core at most."""

_BATCH: Final = 32
"""Callers looked at between two turns of other tasks: some 200 microseconds."""


class _Wait:
    """One caller that waits."""

    __slots__ = ("caller", "interrupted", "scope")

    def __init__(self, caller: Caller, scope: trio.CancelScope) -> None:
        self.caller = caller
        self.scope = scope
        self.interrupted = False


class Waits:
    """All waiting callers of one mount. `run` is the sweeper task; without it only deadlines end waits."""

    def __init__(self, deadline: float, *, limit: int = WAITERS) -> None:
        self._deadline = deadline
        self._limit = limit
        self._kept_descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self._waits: dict[_Wait, None] = {}
        self._someone = trio.Event()

    def __len__(self) -> int:
        """Return how many callers wait now."""
        return len(self._waits)

    @contextmanager
    def of(self, pid: int) -> Iterator[None]:
        """Let the block wait for the thread *pid* (0: unknown), as the daemon sees it.

        Raises WaitInterrupted when the caller got a signal that should end its system call, WaitTimedOut
        after the deadline, and WaitRefused at once when too many wait already.
        """
        if len(self._waits) >= self._limit:
            raise WaitRefused(f"{len(self._waits)} callers wait already (at most {self._limit})")
        with trio.move_on_after(self._deadline) as scope:
            wait = _Wait(Caller(pid, keep=len(self._waits) < self._kept_descriptors), scope)
            self._waits[wait] = None
            self._someone.set()
            try:
                yield
            finally:
                del self._waits[wait]
                wait.caller.close()
        if scope.cancelled_caught:
            if wait.interrupted:
                raise WaitInterrupted(f"process {pid}: got a signal while it waited")
            raise WaitTimedOut(f"process {pid}: waited {self._deadline:g} s in vain (the work goes on)")

    async def run(self) -> None:
        """Look at the waiting callers, for ever; sleeps while nobody waits."""
        while True:
            await self._someone.wait()
            pause = SWEEP_SECONDS
            while self._waits:
                await trio.sleep(pause)
                pause = max(SWEEP_SECONDS, SWEEP_SHARE * await self._sweep())
            self._someone = trio.Event()

    async def _sweep(self) -> float:
        """Interrupt those with a signal; return the seconds that looking took."""
        spent = 0.0
        waits = list(self._waits)
        for start in range(0, len(waits), _BATCH):
            began = trio.current_time()
            for wait in waits[start : start + _BATCH]:
                if wait in self._waits and wait.caller.is_interrupted():
                    wait.interrupted = True
                    wait.scope.cancel()
            spent += trio.current_time() - began
            await trio.lowlevel.checkpoint()
        return spent
