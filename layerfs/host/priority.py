"""Giving way: who extracts or downloads leaves processors, memory and rights to those that others need."""

import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

from layerfs.host.libc import call

NICENESS: Final = 5

OOM_SCORE: Final = 500
"""Thousandths of all memory that are added to what this process has, when the kernel looks for one to end."""
_OOM_SCORE_MAX: Final = 1000
_PR_SET_NO_NEW_PRIVS: Final = 38
"""prctl(2), linux/prctl.h."""

MEMORY_MAX: Final = 1 << 30
"""Bytes: what a hostile image makes a helper need beyond this ends the helper, not the machine."""


def limit_memory() -> None:
    """Let this process have `MEMORY_MAX` bytes of its own (RLIMIT_DATA, setrlimit(2))."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MAX, MEMORY_MAX))


def give_way() -> None:
    """Be nice, a batch job, the first to go when memory ends; gain no rights by exec (no_new_privs).

    So is what this process starts from now on.

    Threads that hand work to each other profit besides: woken, one waits for its turn and then finds several
    pieces.
    """
    os.nice(NICENESS)
    # A hint, which not every sandbox lets through.
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with suppress(OSError):
        score = Path("/proc/self/oom_score_adj")
        score.write_text(str(min(_OOM_SCORE_MAX, int(score.read_text()) + OOM_SCORE)))
    with suppress(OSError):
        call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
