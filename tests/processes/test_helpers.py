"""A helper process, whatever it is asked: questions, descriptors, progress, errors, and its end.

The downloader's own tests (`tests/fetch/test_remote.py`) say what becomes of questions that are cancelled, of
a helper that is killed, idle or stuck, and of what it logs.
"""

import os
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from layerfs.errors import Denied, WorkerDied
from layerfs.fetch.tasks import background
from layerfs.processes import spawning
from layerfs.processes.asking import Helper
from layerfs.processes.messages import packed


@asynccontextmanager
async def helping(settings: object = None, **heard: Any) -> AsyncIterator[Helper]:
    async with background() as nursery:
        yield Helper(nursery, "helper", "tests.processes.helper", packed(settings), 60.0, **heard)


async def ask(helper: Helper, *words: str, files: tuple[int, ...] = (), told: Any = lambda _: None) -> Any:
    return msgspec.json.decode(await helper.ask(packed(words), files, told))


async def test_settings_arrive_before_all_questions() -> None:
    async with helping({"a": [1, None]}) as helper:
        assert await ask(helper, "settings") == {"a": [1, None]}


async def test_descriptors_come_with_their_question_however_many_are_asked_at_once() -> None:
    async with helping() as helper, trio.open_nursery() as nursery:

        async def one(number: int) -> None:
            read, write = os.pipe()
            os.write(write, str(number).encode())
            try:
                (found,) = await ask(helper, "read", files=(read,))
            finally:
                os.close(read)
                os.close(write)
            assert b64decode(found) == str(number).encode()

        for number in range(50):
            nursery.start_soon(one, number)


async def test_progress_comes_before_the_answer_and_in_order() -> None:
    told: list[int] = []
    async with helping() as helper:
        await ask(helper, "count", "100", told=told.append)
    assert told == list(range(100))


async def test_what_a_helper_counts_comes_before_its_answer_and_its_death_is_told_once() -> None:
    heard: list[object] = []
    deaths: list[None] = []

    def counted(raw: msgspec.Raw) -> None:
        heard.append(msgspec.json.decode(raw, type=list[str]))

    async with helping(counted=counted, died=lambda: deaths.append(None)) as helper:
        await ask(helper, "tally", "1", "2")
        assert heard == [["1", "2"]]
        assert deaths == []
        for bad in ("garbage", "nothing that it knows"):
            with pytest.raises(WorkerDied):
                await ask(helper, bad)
        assert len(deaths) == 2
        await ask(helper, "settings")
    assert len(deaths) == 2, "the last one was told to end"


async def test_an_error_comes_back_as_itself_and_an_unknown_one_as_the_helpers() -> None:
    async with helping() as helper:
        with pytest.raises(Denied, match="as asked"):
            await ask(helper, "fail", "Denied")
        with pytest.raises(WorkerDied, match="NoSuchError: as asked"):
            await ask(helper, "fail", "NoSuchError")


async def test_a_bug_in_a_helper_ends_it_and_the_next_question_gets_another() -> None:
    async with helping() as helper:
        with pytest.raises(WorkerDied, match=r"helper \d+: ended, exited with status 1"):
            await ask(helper, "nothing that it knows")
        assert await ask(helper, "settings") is None


async def test_a_helper_of_another_version_is_not_understood() -> None:
    async with helping() as helper:
        with pytest.raises(WorkerDied, match="after an upgrade of layerfs, mount again"):
            await ask(helper, "garbage")
        assert await ask(helper, "settings") is None


@pytest.mark.parametrize("given", [None, "/a", "/a:/b", ":/a", ""])
async def test_a_helper_finds_layerfs_and_leaves_no_trace_of_that(
    monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    """What it starts sees the user's own PYTHONPATH."""
    if given is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", given)
    async with helping() as helper:
        assert await ask(helper, "environment", "PYTHONPATH") == (given or None)


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exited with status 0"), (3, "exited with status 3"), (-9, "killed by signal 9")],
)
def test_how_a_helper_ended_is_said_in_words(status: int, words: str) -> None:
    assert spawning.how_it_ended(status) == words
