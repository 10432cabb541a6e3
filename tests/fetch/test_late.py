"""An origin that is made when it is first asked: once, in time, and left with its owner."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from layerfs.errors import Unreachable
from layerfs.fetch.late import LateOrigin
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.registry import Resolved

REPOSITORY = Repository("registry.example", "library/alpine")
DIGEST = Digest.of(b"content")


class Known:
    """An origin that knows one image, and notes how it is used."""

    def __init__(self) -> None:
        self.made_in: list[threading.Thread] = []
        self.entered = 0
        self.left = 0

    def make(self) -> "Known":
        self.made_in.append(threading.current_thread())
        return self

    async def __aenter__(self) -> "Known":
        self.entered += 1
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.left += 1
        await trio.lowlevel.checkpoint()

    async def resolve(self, repository: Repository, tag: str) -> Resolved:
        await trio.lowlevel.checkpoint()
        return Resolved(DIGEST, "", tag.encode())

    async def fetch_manifest(
        self, repository: Repository, digest: Digest, expected_size: int | None = None
    ) -> tuple[bytes, str]:
        raise Unreachable("no manifest")

    async def fetch_config(self, repository: Repository, descriptor: Descriptor) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"{}"

    @asynccontextmanager
    async def stream_blob(
        self, repository: Repository, descriptor: Descriptor, offset: int = 0
    ) -> AsyncIterator["Bytes"]:
        yield Bytes(offset)


class Bytes:
    """A stream of one chunk."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"content"[self.offset :]


async def test_nothing_is_made_for_a_mount_that_asks_nothing() -> None:
    known = Known()

    async with LateOrigin(known.make):
        pass

    assert (known.made_in, known.left) == ([], 0)


async def test_many_first_questions_make_one_origin_in_a_thread_and_it_is_left_at_the_end() -> None:
    known = Known()
    answers = []

    async def ask(late: LateOrigin, tag: str) -> None:
        answers.append((await late.resolve(REPOSITORY, tag)).raw)

    async with LateOrigin(known.make) as late, trio.open_nursery() as nursery:
        for tag in ("a", "b", "c"):
            nursery.start_soon(ask, late, tag)

    assert sorted(filter(None, answers)) == [b"a", b"b", b"c"]
    assert known.made_in != [threading.main_thread()]
    assert (len(known.made_in), known.entered, known.left) == (1, 1, 1)


async def test_a_stream_starts_where_it_was_asked_for() -> None:
    descriptor = Descriptor("application/octet-stream", DIGEST, 7)

    async with LateOrigin(Known().make) as late, late.stream_blob(REPOSITORY, descriptor, 3) as stream:
        assert (stream.offset, [chunk async for chunk in stream]) == (3, [b"tent"])


async def test_one_that_could_not_be_made_is_made_at_the_next_question() -> None:
    known, failures = Known(), [Unreachable("not yet")]

    def make() -> Known:
        if failures:
            raise failures.pop()
        return known.make()

    async with LateOrigin(make) as late:
        with pytest.raises(Unreachable, match="not yet"):
            await late.resolve(REPOSITORY, "a")
        assert (await late.resolve(REPOSITORY, "b")).raw == b"b"
