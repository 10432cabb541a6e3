"""The faster loop: fair to other tasks, can be cancelled, asleep when idle, and trio for everything else."""

import gc
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from layerfs.fuse import polling, session
from layerfs.fuse.alarm import INTERVAL_SECONDS, Alarm
from layerfs.fuse.polling import EagerLock, EagerReader, installed
from layerfs.settings import Settings


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        os.close(fd)


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    alarm = Alarm()
    yield alarm
    alarm.disarm()


async def test_what_is_readable_is_told_without_a_turn_of_others(
    pipe: tuple[int, int], alarm: Alarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "TURN_SECONDS", 60.0)
    reader = EagerReader(0.0, alarm)
    os.write(pipe[1], b"x")
    await reader.wait_readable(pipe[0])  # the first begins a turn
    with trio.testing.assert_no_checkpoints():
        for _ in range(5):
            await reader.wait_readable(pipe[0])


async def test_what_becomes_readable_wakes_the_sleeper(pipe: tuple[int, int], alarm: Alarm) -> None:
    reader = EagerReader(0.0, alarm)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.wait_readable, pipe[0])
        await trio.testing.wait_all_tasks_blocked()
        os.write(pipe[1], b"x")


async def test_other_tasks_get_turns_while_there_is_always_work(
    pipe: tuple[int, int], alarm: Alarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "TURN_SECONDS", 0.0)
    reader = EagerReader(polling.SPIN_SECONDS, alarm)
    os.write(pipe[1], b"x")
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(20):
            await reader.wait_readable(pipe[0])
        nursery.cancel_scope.cancel()
    assert turns >= 20


async def test_a_timer_that_is_due_fires_in_the_next_turn_of_others(
    pipe: tuple[int, int], alarm: Alarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "TURN_SECONDS", 0.0)
    reader = EagerReader(0.0, alarm)
    os.write(pipe[1], b"x")
    fired = trio.Event()

    async def timer() -> None:
        await trio.sleep_until(started)
        fired.set()

    async with trio.open_nursery() as nursery:
        started = trio.current_time() + 0.01
        nursery.start_soon(timer)
        await trio.lowlevel.checkpoint()
        while trio.current_time() < started:
            time.sleep(0.001)  # noqa: ASYNC251 - the loop is held up, as by a long request
        await reader.wait_readable(pipe[0])
        assert fired.is_set()


async def test_a_busy_reader_can_be_cancelled(pipe: tuple[int, int], alarm: Alarm) -> None:
    reader = EagerReader(0.0, alarm)
    os.write(pipe[1], b"x")
    with trio.move_on_after(0.01) as scope:
        while True:
            await reader.wait_readable(pipe[0])
    assert scope.cancelled_caught


async def test_a_sleeping_reader_can_be_cancelled(pipe: tuple[int, int], alarm: Alarm) -> None:
    with trio.move_on_after(0.01) as scope:
        await EagerReader(0.0, alarm).wait_readable(pipe[0])
    assert scope.cancelled_caught


async def test_an_idle_reader_uses_no_processor(pipe: tuple[int, int], alarm: Alarm) -> None:
    reader = EagerReader(polling.SPIN_SECONDS, alarm)
    gc.disable()  # a collection of all that the tests before left would be long
    try:
        before = time.thread_time()
        with trio.move_on_after(0.5):
            await reader.wait_readable(pipe[0])
        assert time.thread_time() - before < 0.05
    finally:
        gc.enable()


async def test_the_alarm_rests_in_a_sleep_and_is_armed_after_it(pipe: tuple[int, int], alarm: Alarm) -> None:
    reader = EagerReader(0.0, alarm)
    alarm.arm()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.wait_readable, pipe[0])
        await trio.testing.wait_all_tasks_blocked()
        while alarm.is_armed:
            await trio.lowlevel.checkpoint()
        os.write(pipe[1], b"x")
    assert alarm.is_armed


def test_an_alarm_that_is_armed_again_does_not_rest(alarm: Alarm) -> None:
    alarm.arm()
    alarm.rest()
    alarm.arm()
    signal.raise_signal(signal.SIGALRM)
    assert alarm.is_armed


def test_the_alarm_ends_a_blocking_system_call(pipe: tuple[int, int], alarm: Alarm) -> None:
    from layerfs.host.libc import call

    before = time.monotonic()
    alarm.arm()
    with pytest.raises(InterruptedError):
        call("read", pipe[0], b"room", 1)
    assert time.monotonic() - before >= INTERVAL_SECONDS / 2


async def test_a_free_lock_costs_no_turn() -> None:
    lock = EagerLock()
    with trio.testing.assert_no_checkpoints():
        for _ in range(3):
            async with lock:
                pass


async def test_one_task_at_a_time_holds_the_lock() -> None:
    lock, inside, most = EagerLock(), 0, 0

    async def take(times: int) -> None:
        nonlocal inside, most
        for _ in range(times):
            async with lock:
                inside += 1
                most = max(most, inside)
                await trio.lowlevel.checkpoint()
                inside -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(take, 20)
    assert (inside, most) == (0, 1)


async def test_a_waiter_that_is_cancelled_strands_nobody() -> None:
    lock = EagerLock()
    got = []

    async def take(name: str) -> None:
        async with lock:
            got.append(name)

    async with trio.open_nursery() as nursery:
        async with lock:
            cancelled = trio.CancelScope()

            async def take_cancelled() -> None:
                with cancelled:
                    await take("cancelled")

            nursery.start_soon(take_cancelled)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(take, "second")
            await trio.testing.wait_all_tasks_blocked()
        # The first waiter is woken and cancelled in the same moment; it must not swallow the wake-up.
        cancelled.cancel()
    assert got[-1] == "second"


async def test_a_handler_that_sleeps_does_not_hold_up_the_reader(pipe: tuple[int, int], alarm: Alarm) -> None:
    reader, lock = EagerReader(0.0, alarm), EagerLock()
    served: list[int] = []
    release = trio.Event()

    async def worker(number: int) -> None:
        async with lock:
            await reader.wait_readable(pipe[0])
            os.read(pipe[0], 1)
        served.append(number)
        if len(served) == 1:
            await release.wait()
        release.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker, 1)
        nursery.start_soon(worker, 2)
        os.write(pipe[1], b"xx")
    assert len(served) == 2


def test_the_namespace_is_trio_but_for_two_names_and_taken_back() -> None:
    module = SimpleNamespace(trio=trio)
    with installed(module, spin=0.0):
        assert module.trio is not trio
        assert module.trio.Lock is EagerLock
        assert module.trio.open_nursery is trio.open_nursery
        assert module.trio.ClosedResourceError is trio.ClosedResourceError
        assert module.trio.lowlevel.current_task is trio.lowlevel.current_task
        assert module.trio.lowlevel.wait_readable is not trio.lowlevel.wait_readable
    assert module.trio is trio


def test_one_processor_means_no_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert polling.spin_seconds() == 0.0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert polling.spin_seconds() == polling.SPIN_SECONDS


def test_who_wants_no_polling_sleeps_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert session.spin(Settings(store=tmp_path)) == polling.SPIN_SECONDS
    assert session.spin(Settings(store=tmp_path, poll=False)) == 0.0
