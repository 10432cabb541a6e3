"""Single flight: one job a key, whoever asks, gives up or fails."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import LayerfsError, NotFound
from layerfs.flights import SingleFlight, ending_with_callers


@asynccontextmanager
async def _flights() -> AsyncIterator[SingleFlight[str, int]]:
    async with trio.open_nursery() as nursery:
        yield SingleFlight(nursery)
        nursery.cancel_scope.cancel()


@given(patience=st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_a_job_runs_once_and_to_its_end_however_callers_cancel(patience: list[int]) -> None:
    runs: list[int] = []
    results: list[int | None] = [None] * len(patience)

    async def main() -> None:
        ended = trio.Event()

        async def job() -> int:
            for _ in range(2):
                await trio.sleep(1)
            runs.append(1)
            ended.set()
            return 42

        async def caller(number: int, seconds: int) -> None:
            with trio.move_on_after(seconds + 0.5):
                results[number] = await flights.do("layer", job)

        async with _flights() as flights:
            async with trio.open_nursery() as callers:
                for number, seconds in enumerate(patience):
                    callers.start_soon(caller, number, seconds)
            await ended.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert len(flights) == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert runs == [1]
    assert results == [42 if seconds >= 2 else None for seconds in patience]


async def test_every_waiter_gets_a_fresh_error_and_the_next_caller_a_new_try() -> None:
    tries: list[int] = []
    errors: list[LayerfsError] = []

    async def job() -> int:
        tries.append(1)
        await trio.testing.wait_all_tasks_blocked()
        raise NotFound("gone")

    async def caller() -> None:
        with pytest.raises(NotFound, match="gone") as caught:
            await flights.do("layer", job)
        errors.append(caught.value)

    async with _flights() as flights:
        async with trio.open_nursery() as callers:
            callers.start_soon(caller)
            callers.start_soon(caller)
        assert len(tries) == 1
        assert errors[0] is not errors[1]
        with pytest.raises(NotFound):
            await flights.do("layer", job)
    assert len(tries) == 2


@pytest.mark.allow_warnings
async def test_a_bug_in_a_job_reaches_the_waiter_as_our_error_and_harms_no_other_key() -> None:
    async def bug() -> int:
        raise ZeroDivisionError

    async def fine() -> int:
        return 7

    async with _flights() as flights:
        with pytest.raises(LayerfsError, match="ZeroDivisionError"):
            await flights.do("bad", bug)
        assert await flights.do("good", fine) == 7


async def test_what_the_machine_lacks_is_no_bug_of_the_job() -> None:
    async def job() -> int:
        raise ExceptionGroup("of a nursery", [RuntimeError("can't start new thread")])

    async with _flights() as flights:
        with pytest.raises(LayerfsError, match=r"^can't start new thread; raise the limit"):
            await flights.do("layer", job)


async def test_different_keys_fly_side_by_side() -> None:
    first, second = trio.Event(), trio.Event()

    async def meet(own: trio.Event, other: trio.Event) -> int:
        own.set()
        await other.wait()
        return 1

    async with _flights() as flights, trio.open_nursery() as callers:
        callers.start_soon(flights.do, "a", lambda: meet(first, second))
        callers.start_soon(flights.do, "b", lambda: meet(second, first))


async def test_work_that_ends_with_its_nursery_is_an_error_for_who_still_waits() -> None:
    async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
        flights: SingleFlight[str, int] = SingleFlight(nursery)

        async def caller() -> None:
            with pytest.raises(LayerfsError):
                await flights.do("layer", trio.sleep_forever)

        callers.start_soon(caller)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


# Without a nursery: the first caller runs the job itself


async def test_when_the_leader_is_cancelled_the_next_one_leads() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    began: list[str] = []
    results: list[str] = []

    async def caller(name: str) -> None:
        async def job() -> str:
            began.append(name)
            await gate.wait()
            return name

        results.append(await flights.do("token", job))

    gate = trio.Event()
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as doomed:
            doomed.start_soon(caller, "first")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(caller, "other")
            nursery.start_soon(caller, "other")
            await trio.testing.wait_all_tasks_blocked()
            doomed.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert began == ["first", "other"]
    assert results == ["other", "other"]
    assert len(flights) == 0


async def test_a_leader_hands_its_failure_to_all_and_keeps_none() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    tries: list[int] = []

    async def job() -> int:
        tries.append(1)
        await trio.testing.wait_all_tasks_blocked()
        raise NotFound("gone")

    async def caller() -> None:
        with pytest.raises(NotFound, match="gone"):
            await flights.do("token", job)

    async with trio.open_nursery() as callers:
        callers.start_soon(caller)
        callers.start_soon(caller)
    assert len(tries) == 1
    await caller()
    assert len(tries) == 2


class _Job:
    """Work that takes a second, and counts how often it was begun and done."""

    def __init__(self) -> None:
        self.begun = self.done = 0

    async def __call__(self) -> int:
        self.begun += 1
        await trio.sleep(1)
        self.done += 1
        return self.done


async def _patient(flights: SingleFlight[str, int], job: _Job, seconds: float) -> int | None:
    with trio.move_on_after(seconds):
        return await flights.do("layer", job)
    return None


async def _leaving(flights: SingleFlight[str, int], job: _Job, seconds: float) -> int | None:
    with ending_with_callers():
        return await _patient(flights, job, seconds)


_Caller = Callable[[SingleFlight[str, int], _Job, float], Awaitable[int | None]]

# Who asks, how long each waits; how often the job is begun, and done, when all is over.
ENDS: dict[str, tuple[list[tuple[_Caller, float]], int, int]] = {
    "alone": ([(_leaving, 0.5)], 1, 0),
    "two, both of whom go": ([(_leaving, 0.3), (_leaving, 0.5)], 1, 0),
    "two, one of whom goes": ([(_leaving, 0.5), (_leaving, 2)], 1, 1),
    "one who goes, after one who may": ([(_patient, 0.3), (_leaving, 0.5)], 1, 1),
    "one who goes, before one who may": ([(_leaving, 0.3), (_patient, 0.5)], 1, 1),
    "two who may": ([(_patient, 0.3), (_patient, 0.5)], 1, 1),
}


@pytest.mark.parametrize("who", ENDS)
def test_work_ends_with_the_last_of_those_who_want_it_ended(who: str) -> None:
    callers, begun, done = ENDS[who]
    job = _Job()

    async def main() -> None:
        async with _flights() as flights:
            async with trio.open_nursery() as nursery:
                for caller, seconds in callers:
                    nursery.start_soon(caller, flights, job, seconds)
                    await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(2)
            assert len(flights) == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert (job.begun, job.done) == (begun, done)


def test_who_comes_while_work_ends_begins_it_anew() -> None:
    job = _Job()

    async def slow_to_end() -> int:
        try:
            return await job()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)

    async def main() -> int:
        async with _flights() as flights:
            with ending_with_callers(), trio.move_on_after(0.5):
                await flights.do("layer", slow_to_end)
            return await flights.do("layer", slow_to_end)

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == 1
    assert (job.begun, job.done) == (2, 1)


def test_work_that_work_asks_for_ends_with_it() -> None:
    inner = _Job()

    async def main() -> None:
        async with _flights() as flights, _flights() as below:
            with ending_with_callers(), trio.move_on_after(0.5):
                await flights.do("image", lambda: below.do("layer", inner))
            await trio.sleep(2)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert (inner.begun, inner.done) == (1, 0)
