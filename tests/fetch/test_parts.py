"""Parts of blobs: asked for once, kept across processes, resumed, refused where there are no ranges."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from layerfs.errors import NoRanges, NotFound, Unreachable
from layerfs.fetch.origin import InProcess
from layerfs.fetch.parts import BlobParts
from layerfs.fetch.progress import Progress
from layerfs.fetch.spans import GAP_MAX, Span
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.registry.client import RegistryClient
from layerfs.store import ImageStorage
from layerfs.store.parts import Part
from tests.support.faulty_registry import FaultyRegistry
from tests.support.registry_client import quick

CONTENT = bytes(range(251)) * 12_000


@pytest.fixture
def blob(faulty: FaultyRegistry) -> Descriptor:
    return Descriptor("", faulty.push_blob(CONTENT), len(CONTENT))


@pytest.fixture
def repository(faulty: FaultyRegistry) -> Repository:
    return faulty.repository("a/b")


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[BlobParts]:
    async with RegistryClient(quick()) as client:
        yield BlobParts(ImageStorage(tmp_path), InProcess(client))


def ranges(faulty: FaultyRegistry) -> list[str]:
    return [asked.headers.get("range", "") for asked in faulty.asked if "/blobs/" in asked.path]


def check(parts: list[Part], *wanted: Span) -> None:
    held: dict[int, int] = {}
    for part in parts:
        held.update(zip(range(part.start, part.end), part.read(part.start, part.end), strict=True))
    for span in wanted:
        assert bytes(held[at] for at in range(*span)) == CONTENT[span.start : span.end]


async def test_what_is_here_is_not_asked_for_again(
    faulty: FaultyRegistry, blob: Descriptor, repository: Repository, parts: BlobParts, tmp_path: Path
) -> None:
    one, two = Span(10, 1000), Span(3 * GAP_MAX, 3 * GAP_MAX + 5)
    check(await parts.have(repository, blob, [one, two]), one, two)
    assert sorted(ranges(faulty)) == [f"bytes={span.start}-{span.end - 1}" for span in (one, two)]
    check(await parts.have(repository, blob, [Span(20, 500)]), Span(20, 500))
    assert len(ranges(faulty)) == 2
    async with RegistryClient(quick()) as client:
        later = BlobParts(ImageStorage(tmp_path), InProcess(client))
        check(await later.have(repository, blob, [one]), one)
    assert len(ranges(faulty)) == 2, "another process asked again"
    await parts.discard(blob.digest)
    await parts.have(repository, blob, [one])
    assert len(ranges(faulty)) == 3


async def test_a_range_that_breaks_off_goes_on_there(
    faulty: FaultyRegistry, blob: Descriptor, repository: Repository, parts: BlobParts
) -> None:
    faulty.faults.cut_blobs = [100_000]
    span = Span(5, 2_000_000)
    check(await parts.have(repository, blob, [span]), span)
    first, second = ranges(faulty)
    assert first == f"bytes=5-{span.end - 1}"
    assert int(second.removeprefix("bytes=").partition("-")[0]) > 50_000


async def test_a_registry_without_ranges(
    faulty: FaultyRegistry, blob: Descriptor, repository: Repository, parts: BlobParts
) -> None:
    faulty.faults.ignore_range = True
    with pytest.raises(NoRanges, match="answers no ranges"):
        await parts.have(repository, blob, [Span(2_000_000, 2_000_010)])


async def test_failures_are_those_of_the_registry(
    faulty: FaultyRegistry, repository: Repository, parts: BlobParts, tmp_path: Path
) -> None:
    with pytest.raises(NotFound):
        await parts.have(repository, Descriptor("", Digest.of(b"none"), 10), [Span(0, 5)])
    with pytest.raises(Unreachable):
        await parts.have(Repository("127.0.0.1:1", "a/b"), Descriptor("", Digest.of(b"x"), 10), [Span(0, 5)])
    assert [path.name for path in (tmp_path / "layers").iterdir()] == []


async def test_what_a_collection_took_is_asked_for_again(
    faulty: FaultyRegistry, blob: Descriptor, repository: Repository, parts: BlobParts, tmp_path: Path
) -> None:
    span = Span(10, 1000)
    await parts.have(repository, blob, [span])
    for path in (tmp_path / "layers").glob("*.part"):
        path.unlink()
    check(await parts.have(repository, blob, [span]), span)
    assert len(ranges(faulty)) == 2


async def test_what_a_download_of_the_whole_is_about_to_bring_is_not_asked_for(
    faulty: FaultyRegistry, blob: Descriptor, repository: Repository, parts: BlobParts, tmp_path: Path
) -> None:
    path, progress = tmp_path / "growing", Progress(repository, blob.digest, blob.size)
    path.write_bytes(CONTENT[:500_000])
    span = Span(1_400_000, 1_400_100)
    got: list[Part] = []

    async def want() -> None:
        got.extend((await parts.have_ahead(repository, blob, [span])).parts)

    await parts.have_ahead(repository, blob, [Span(0, 1_200_000)])  # so much that all is wanted
    assert len(ranges(faulty)) == 1
    with parts.arriving(path, progress):
        async with trio.open_nursery() as nursery:
            progress.advance(500_000)
            nursery.start_soon(want)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not got
            path.write_bytes(CONTENT[:2_500_000])
            progress.advance(2_500_000)
        check(got, span)
        check(await parts.have(repository, blob, [Span(2_400_000, 2_400_009)]), Span(2_400_000, 2_400_009))
        assert len(ranges(faulty)) == 1
        check(await parts.have(repository, blob, [Span(2_600_000, 2_600_009)]), Span(2_600_000, 2_600_009))
    assert len(ranges(faulty)) == 2, "one file alone does not wait for what others want"


async def test_only_what_holds_the_wanted_bytes_is_returned(
    blob: Descriptor, repository: Repository, parts: BlobParts
) -> None:
    await parts.have(repository, blob, [Span(0, 1000)])
    (part,) = await parts.have(repository, blob, [Span(500_000, 500_010)])
    assert (part.start, part.end) == (500_000, 500_010)
    assert len(await parts.here(blob.digest, repository.registry)) == 2
