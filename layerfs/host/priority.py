"""Giving way: a process that extracts or downloads leaves the processors to one that somebody waits for."""

import os
from contextlib import suppress
from typing import Final

NICENESS: Final = 5


def give_way() -> None:
    """Be nice, and a batch job, as what this process starts from now on.

    Threads that hand work to each other profit besides: woken, one waits for its turn and then finds several
    pieces.
    """
    os.nice(NICENESS)
    # A hint, which not every sandbox lets through.
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
