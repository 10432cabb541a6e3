"""One blob by several requests: all its bytes whatever happens to them, and one request at the first harm."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from layerfs.errors import (
    DigestMismatch,
    LayerfsError,
    NoRanges,
    RateLimited,
    RegistryMisbehaved,
    RegistryTimeout,
    StoreFull,
    Unreachable,
    WorkerDied,
)
from layerfs.fetch import receiving
from layerfs.fetch.download import download
from layerfs.fetch.operations import ReceivePiece
from layerfs.fetch.origin import InProcess, Listener, Operation, ignore
from layerfs.fetch.progress import Progress
from layerfs.fetch.streams import Rate, Streams
from layerfs.fetch.window import Window
from layerfs.oci import Repository
from layerfs.registry.client import RegistryClient
from layerfs.store import ImageStorage
from layerfs.store.pieces import Pieces
from tests.support import images
from tests.support.fake_origin import Delivery, FakeOrigin
from tests.support.faulty_registry import Answer, FaultyRegistry
from tests.support.registry_client import quick

A = TypeVar("A")

LAYER = images.layer(images.file("a", os.urandom(2_000_000)), compression="none")
BUILT = images.image(LAYER)
BLOB = LAYER.blob
DESCRIPTOR = LAYER.descriptor()
REPOSITORY = Repository("r.example", "a/b")
PIECE = 256 << 10
PROBE = 100_000
SEVERAL = Streams(most=3, least=500_000, piece=PIECE, probe=PROBE, enough=math.inf)


async def attempt(storage: ImageStorage, origin: object, repository: Repository = REPOSITORY) -> Progress:
    """Download by several requests, and commit."""
    progress = Progress(repository, DESCRIPTOR.digest, DESCRIPTOR.size)
    with storage.stage_layer_download(DESCRIPTOR.digest, DESCRIPTOR.size, repository.registry) as staged:
        await download(origin, staged, repository, DESCRIPTOR, progress, streams=SEVERAL)  # type: ignore[arg-type]
        assert staged.staged_path.stat().st_size == len(BLOB)
        staged.commit()
    return progress


@dataclass(frozen=True)
class Row:
    """What befalls the requests for the front, and those beside it; the blob is whole in the end."""

    front: list[Delivery] = field(default_factory=list)
    beside: list[Delivery | None] = field(default_factory=list)
    alone: bool = True
    """Whether one request goes on from then on."""


WELL = Delivery()
ROWS = {
    "well": Row(alone=False),
    "no place beside, ever": Row(beside=[None] * 100, alone=False),
    "no place beside, at first": Row(beside=[None] * 3, alone=False),
    "a part of a range": Row(beside=[Delivery(until=PIECE + 90_000)], alone=False),
    "no ranges from the start": Row(front=[Delivery(from_start=True)]),
    "no ranges later": Row(front=[WELL, Delivery(from_start=True)]),
    "no ranges beside": Row(beside=[Delivery(refused=NoRanges("200"))]),
    "too many requests": Row(beside=[WELL, Delivery(refused=RateLimited("429"))]),
    "503 beside": Row(beside=[Delivery(refused=Unreachable("503"))] * 2),
    "cut beside": Row(beside=[Delivery(until=PIECE + 90_000, broken=Unreachable("cut"))]),
    "an empty answer beside": Row(beside=[Delivery(until=0)]),
    "silent beside": Row(beside=[Delivery(until=2 * PIECE + 9, broken=RegistryTimeout("silent"))] * 2),
    "cut at the front": Row(front=[WELL, Delivery(until=PIECE - 9, broken=Unreachable("cut"))]),
    "an empty answer at the front": Row(front=[WELL, Delivery(until=0)]),
    "cut at the probe": Row(front=[Delivery(until=50_000, broken=Unreachable("cut"))], alone=False),
}


@pytest.mark.parametrize("inline", [False, True], ids=["by threads", "inline"])
@pytest.mark.parametrize("name", ROWS)
async def test_the_blob_is_whole(name: str, inline: bool, store: Path, autojump_clock: object) -> None:
    row = ROWS[name]
    origin = FakeOrigin((BUILT,), deliveries=list(row.front), spare=list(row.beside), inline=inline)
    with ImageStorage(store) as storage:
        progress = await attempt(storage, origin)
        blob = storage.open_blob(DESCRIPTOR.digest)
        assert blob is not None
        assert blob.path.read_bytes() == BLOB
    assert (progress.ended, progress.received) == ("complete", len(BLOB))
    assert origin.offsets()[0] == 0
    if not row.alone:
        assert sum("range" in line for line in origin.asked) >= 2


@pytest.mark.parametrize("error", [WorkerDied("killed"), StoreFull("full")], ids=["worker", "disk"])
@pytest.mark.parametrize("beside", [False, True])
async def test_what_no_registry_did_ends_it(
    error: LayerfsError, beside: bool, store: Path, autojump_clock: object
) -> None:
    broken = Delivery(refused=error)
    origin = FakeOrigin(
        (BUILT,), deliveries=[] if beside else [WELL, broken], spare=[broken] if beside else [], inline=True
    )
    with ImageStorage(store) as storage:
        with pytest.raises(type(error)):
            await attempt(storage, origin)
        await attempt(storage, origin)


async def test_a_cancelled_download_keeps_its_pieces_and_asks_for_the_rest_alone(store: Path) -> None:
    """The first request holds its piece back; the others come to the end of the window."""
    origin = FakeOrigin((BUILT,), deliveries=[WELL, Delivery(until=0, hold=trio.Event())], inline=True)
    with ImageStorage(store) as storage:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt, storage, origin)
            while len(origin.asked) < 2 + 5:
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with storage.stage_layer_download(DESCRIPTOR.digest, DESCRIPTOR.size, "r.example") as staged:
            assert staged.pieces is not None
            here = set(staged.pieces.here)
        assert len(here) >= 4
        asked = len(origin.asked)
        await attempt(storage, origin)
    again = [int(line.split()[2]) for line in origin.asked[asked:]]
    assert not here & {start // PIECE for start in again}


async def test_wrong_bytes_of_one_request_are_found_out_by_the_digest(
    store: Path, autojump_clock: object
) -> None:
    origin = FakeOrigin((BUILT,), spare=[Delivery(content=bytes(len(BLOB)))], inline=True)
    with ImageStorage(store) as storage:
        with pytest.raises(DigestMismatch):
            await attempt(storage, origin)
        assert list(store.rglob("*.downloading")) == []  # noqa: ASYNC240 - a few names in memory


async def test_after_wrong_bytes_there_is_one_request(store: Path) -> None:
    origin = FakeOrigin((BUILT,), inline=True)
    progress = Progress(REPOSITORY, DESCRIPTOR.digest, DESCRIPTOR.size)
    progress.restart()
    with ImageStorage(store).stage_layer_download(DESCRIPTOR.digest, DESCRIPTOR.size) as staged:
        await download(origin, staged, REPOSITORY, DESCRIPTOR, progress, streams=SEVERAL)
    assert [line.split()[0] for line in origin.asked] == ["blob"]


async def test_one_request_goes_on_where_it_is_fast_enough(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = FakeOrigin((BUILT,), chunk=10_000, inline=True)
    fast = Streams(most=3, least=500_000, piece=PIECE, probe=PIECE, enough=0)
    progress = Progress(REPOSITORY, DESCRIPTOR.digest, DESCRIPTOR.size)
    monkeypatch.setattr(receiving, "ANNOUNCED", 1)
    with ImageStorage(store).stage_layer_download(DESCRIPTOR.digest, DESCRIPTOR.size) as staged:
        await download(origin, staged, REPOSITORY, DESCRIPTOR, progress, streams=fast)
    assert origin.offsets() == [0, PIECE]
    assert not any("range" in line for line in origin.asked)


async def test_watchers_hear_of_the_front_alone(store: Path) -> None:
    """What is told may be read: an extractor takes each byte before it for one of the blob."""
    origin = FakeOrigin((BUILT,), chunk=30_000, inline=True)
    progress = Progress(REPOSITORY, DESCRIPTOR.digest, DESCRIPTOR.size)
    seen = []
    with ImageStorage(store).stage_layer_download(DESCRIPTOR.digest, DESCRIPTOR.size) as staged:

        def look(received: int) -> None:
            seen.append(received)
            assert os.pread(staged.descriptors[0], received, 0) == BLOB[:received]

        progress.advance = look  # type: ignore[method-assign]
        await download(origin, staged, REPOSITORY, DESCRIPTOR, progress, streams=SEVERAL)
    assert seen == sorted(seen)
    assert len(seen) > 5


Fault = Callable[[FaultyRegistry], None]


def _no_ranges(registry: FaultyRegistry) -> None:
    registry.faults.ignore_range = True


def _refuses(registry: FaultyRegistry) -> None:
    registry.faults.refuse_range = True


def _limits(registry: FaultyRegistry) -> None:
    registry.faults.most_of_range = 150_000


def _busy(registry: FaultyRegistry) -> None:
    path = f"/v2/a/b/blobs/{DESCRIPTOR.digest}"
    registry.faults.first += [(path, Answer(200, BLOB)), (path, Answer(429)), (path, Answer(503))]


def _redirects(registry: FaultyRegistry) -> None:
    registry.faults.redirect_to_storage = True


def _cuts(registry: FaultyRegistry) -> None:
    registry.faults.cut_blobs += [200_000, 9000, 0]


def _well(registry: FaultyRegistry) -> None:
    """Nothing happens."""


@pytest.mark.parametrize("fault", [_well, _no_ranges, _refuses, _limits, _busy, _redirects, _cuts])
async def test_a_registry_of_any_kind_gives_all_bytes(
    fault: Fault, faulty: FaultyRegistry, store: Path
) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    fault(faulty)
    async with RegistryClient(quick()) as client:
        with ImageStorage(store) as storage:
            await attempt(storage, InProcess(client, inline=True), repository)
            blob = storage.open_blob(DESCRIPTOR.digest)
            assert blob is not None
            assert blob.path.read_bytes() == BLOB
    if fault is _well:
        assert sum("/blobs/" in asked.path for asked in faulty.asked) >= 8
        assert all(asked.headers.get("range") for asked in faulty.asked if "/blobs/" in asked.path)
    if fault in (_no_ranges, _refuses):
        assert sum("/blobs/" in asked.path for asked in faulty.asked) <= 2


class _Hearing(InProcess):
    """Remembers what came of the requests beside another."""

    def __init__(self, client: RegistryClient) -> None:
        super().__init__(client, inline=True)
        self.had_places: list[bool] = []

    async def ask(self, operation: Operation[A], files: tuple[int, ...] = (), told: Listener = ignore) -> A:
        answer = await super().ask(operation, files, told)
        if isinstance(operation, ReceivePiece):
            self.had_places.append(bool(answer))
        return answer


@pytest.mark.parametrize("places", [1, 6])
async def test_requests_beside_another_wait_for_no_place(
    faulty: FaultyRegistry, store: Path, places: int
) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    async with RegistryClient(quick(downloads_per_site=places)) as client:
        origin = _Hearing(client)
        with ImageStorage(store) as storage:
            await attempt(storage, origin, repository)
    assert all(origin.had_places) == (places > 1)


async def test_a_range_of_another_length_is_refused(faulty: FaultyRegistry, store: Path) -> None:
    """A blob that has another length now is another blob, whatever it is called."""
    repository = faulty.push("a/b", "1", BUILT)
    faulty.faults.content_range = f"bytes 0-99999/{len(BLOB) + 1}"
    async with RegistryClient(quick()) as client:
        with pytest.raises(RegistryMisbehaved):
            async with client.stream_range(repository, DESCRIPTOR, 0, 100_000):
                raise AssertionError("it was opened")


def test_the_window_keeps_near_the_front() -> None:
    window = Window(Pieces.of(1000, 100), 50, 3)
    taken = [window.take() for _ in range(4)]
    assert taken == [(0, 50, 100), (1, 100, 200), (2, 200, 300), None]
    window.arrived(1, 200)
    assert window.front == 50
    window.arrived(0, 100)
    assert window.front == 200
    window.give_back(1)
    assert window.take() == (3, 300, 400)
    window.give_back(2)
    assert window.take() == (2, 200, 300)


async def test_a_rate_is_of_what_came_behind_the_first_bytes(autojump_clock: object) -> None:
    rate = Rate()
    told = rate.hearing(ignore)
    assert not rate.is_above(0)
    await trio.sleep(10)
    told(1000)
    assert not rate.is_above(0)
    await trio.sleep(2)
    told(3000)
    assert rate.is_above(999)
    assert not rate.is_above(1000)
