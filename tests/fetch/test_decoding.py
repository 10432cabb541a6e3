"""How many extractors small jobs have."""

import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from layerfs.extract.client import Extractor, ExtractorPool, drop
from layerfs.extract.job import UnpackJob
from layerfs.fetch import decoding
from layerfs.fetch.decoding import Decoders, open_decoders


async def beside(decoders: Decoders, end: threading.Event) -> tuple[int, int]:
    """Have a job done while another one, which ends once *end* is set, is; return whose process did each."""
    begun, pids = trio.Event(), [0, 0]
    token = trio.lowlevel.current_trio_token()

    def first(extractor: Extractor) -> None:
        token.run_sync_soon(begun.set)
        pids[0] = extractor.pid
        end.wait()

    def second(extractor: Extractor) -> None:
        pids[1] = extractor.pid
        end.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(decoders.run, first)
        await begun.wait()
        nursery.start_soon(decoders.run, second)
        if decoding._PATIENCE > 1:
            await wait_all_tasks_blocked()
            end.set()
    return pids[0], pids[1]


async def test_a_job_waits_a_moment_for_the_extractor_that_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_PATIENCE", 60.0)
    with open_decoders() as decoders:
        first, second = await beside(decoders, threading.Event())
    assert first == second


async def test_a_job_that_waited_for_long_has_an_extractor_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decoding, "_PATIENCE", 0.01)
    with open_decoders() as decoders:
        first, second = await beside(decoders, threading.Event())
        assert first != second
        monkeypatch.setattr(decoding, "_PATIENCE", float("inf"))  # nobody waits where both are there
        again = threading.Event()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(decoders.run, lambda _: again.wait())
                await decoders.run(lambda _: again.set())


async def test_the_first_job_has_the_extractor_that_starts_ahead_of_it() -> None:
    with open_decoders() as decoders:
        await decoders.warm()
        with_one = decoders._pool._idle[0][1].pid
        assert await decoders.run(lambda extractor: extractor.pid) == with_one


async def test_whoever_gives_up_before_there_is_an_extractor_has_none_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, go, done = trio.Event(), threading.Event(), list[str]()
    token = trio.lowlevel.current_trio_token()
    acquire = ExtractorPool.acquire

    def slowly(pool: ExtractorPool) -> Extractor:
        token.run_sync_soon(asked.set)
        go.wait()
        return acquire(pool)

    def work(extractor: Extractor) -> None:
        extractor.start(UnpackJob(digest="", contents=(), held=()))
        extractor.unpacked(drop)
        done.append("unpacked")

    monkeypatch.setattr(ExtractorPool, "acquire", slowly)
    with open_decoders() as decoders:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(decoders.run, work)
            await asked.wait()
            nursery.cancel_scope.cancel()
            token.run_sync_soon(token.run_sync_soon, go.set)
        assert not done
        await decoders.run(work)
    assert done == ["unpacked"]
