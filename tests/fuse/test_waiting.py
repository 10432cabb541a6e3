"""Waits end by their block, a signal or the deadline; there is a limit to how many there are."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from layerfs.errors import WaitInterrupted, WaitRefused, WaitTimedOut
from layerfs.fuse.waiting import Waits


@contextmanager
def stopped() -> Iterator[int]:
    """A dead process; one that waits uninterruptibly, as FUSE's clients do, is in test_interrupts."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    yield process.pid


async def test_a_wait_that_is_over_leaves_nothing() -> None:
    waits = Waits(10)
    descriptors = len(os.listdir("/proc/self/fd"))
    with waits.of(os.getpid()):
        assert len(waits) == 1
        await trio.lowlevel.checkpoint()
    assert len(waits) == 0
    assert len(os.listdir("/proc/self/fd")) == descriptors


async def test_the_deadline_ends_the_wait_and_not_the_work(autojump_clock: trio.testing.MockClock) -> None:
    waits = Waits(900)
    done = trio.Event()
    with pytest.raises(WaitTimedOut, match="900 s"), waits.of(0):
        await done.wait()
    assert len(waits) == 0


async def test_a_caller_that_is_gone_waits_no_longer(nursery: trio.Nursery) -> None:
    waits = Waits(60)
    nursery.start_soon(waits.run)
    with stopped() as pid, pytest.raises(WaitInterrupted), waits.of(pid):
        await trio.sleep_forever()


async def test_only_the_interrupted_caller_is_woken(nursery: trio.Nursery) -> None:
    waits = Waits(60)
    nursery.start_soon(waits.run)
    over = trio.Event()
    ended = []

    async def wait(pid: int) -> None:
        try:
            with waits.of(pid):
                await over.wait()
                ended.append("met")
        except WaitInterrupted:
            ended.append("interrupted")

    with stopped() as gone:
        async with trio.open_nursery() as callers:
            for pid in (os.getpid(), gone, 0):
                callers.start_soon(wait, pid)
            while not ended:  # noqa: ASYNC110 - the sweeper has no event for us
                await trio.sleep(0.01)
            assert ended == ["interrupted"]
            over.set()
    assert ended == ["interrupted", "met", "met"]


async def test_an_error_in_the_block_is_that_error() -> None:
    waits = Waits(10)
    with pytest.raises(ValueError, match="x"), waits.of(0):
        raise ValueError("x")
    assert len(waits) == 0


async def test_a_cancelled_block_is_cancelled() -> None:
    waits = Waits(10)
    with trio.move_on_after(0) as scope:
        with waits.of(0):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_too_many_waiters_are_told_to_come_again() -> None:
    waits = Waits(10, limit=1)
    with waits.of(0), pytest.raises(WaitRefused, match="at most 1"), waits.of(0):
        pass


async def test_the_sweeper_sleeps_while_nobody_waits(nursery: trio.Nursery) -> None:
    waits = Waits(10)
    nursery.start_soon(waits.run)
    await trio.testing.wait_all_tasks_blocked()
    before = trio.lowlevel.current_statistics().seconds_to_next_deadline
    assert before == float("inf")
    with waits.of(os.getpid()):
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline < 1
