"""Giving way: a process that extracts or downloads leaves the processors to one that somebody waits for."""

import os
import struct
from contextlib import suppress
from typing import Final

from layerfs.host.libc import syscall

NICENESS: Final = 5
SLICE_NS: Final = 100_000_000
"""The longest slice Linux accepts. A waking task with a shorter one, which is the default, preempts us
instead of waiting for our slice to end (kernel/sched/fair.c, PREEMPT_SHORT; since Linux 6.12)."""

_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
"""struct sched_attr, its first version: size, policy, flags, nice, priority, runtime, deadline, period."""


def give_way() -> None:
    """Be nice, and a batch job, as what this process starts from now on.

    Threads that hand work to each other profit besides: woken, one waits for its turn and then finds several
    pieces.
    """
    nice = os.nice(NICENESS)
    # Hints, which not every sandbox lets through.
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with suppress(OSError, KeyError):
        attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_BATCH, 0, nice, 0, SLICE_NS, 0, 0)
        syscall("sched_setattr", _SCHED_SETATTR[os.uname().machine], 0, attributes, 0)
