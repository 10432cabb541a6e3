"""When a lent worker begins to hash: while a blob comes, or once it is whole."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from layerfs.errors import DigestMismatch, LayerfsError
from layerfs.extract.client import Extractor, ExtractorPool
from layerfs.extract.job import Hashed, HashJob
from layerfs.fetch.progress import Progress
from layerfs.fetch.workers import Workers
from layerfs.oci import Digest, Repository
from tests.support.clients import children

BLOB = bytes(range(256)) * 5_000
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"
CORES = pytest.mark.parametrize("cores", [1, 2, 3, 64])


@pytest.fixture
def pool() -> Iterator[ExtractorPool]:
    with ExtractorPool(1) as pool:
        yield pool


@pytest.fixture
def progress() -> Progress:
    return Progress(Repository("r.example", "a/b"), Digest.parse(DIGEST), len(BLOB))


@pytest.fixture
def job(tmp_path: Path) -> HashJob:
    blob = tmp_path / "blob"
    blob.write_bytes(BLOB)
    return HashJob(blob=str(blob), digest=DIGEST, size=len(BLOB), complete=False)


async def until_there_is_a_worker() -> None:
    with trio.fail_after(30):
        while not children("layerfs.extract.worker"):  # noqa: ASYNC110 - a process tells nobody that it was started
            await trio.sleep(0.02)


@CORES
async def test_a_blob_is_hashed_to_its_end(
    pool: ExtractorPool, job: HashJob, progress: Progress, cores: int
) -> None:
    found = []

    async def hashing() -> None:
        found.append(await Workers(pool, 1, cores=cores).hash(job, progress))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hashing)
        progress.advance(len(BLOB) // 2)
        await trio.sleep(0.2)
        progress.advance(len(BLOB))
        await trio.sleep(0.2)
        assert not found, "more may come until the download has ended"
        progress.complete(len(BLOB))
    assert found == [Hashed(DIGEST, len(BLOB))]


@CORES
async def test_wrong_bytes_are_refused(
    pool: ExtractorPool, job: HashJob, progress: Progress, cores: int
) -> None:
    promised = f"sha256:{'0' * 64}"
    progress.complete(len(BLOB))
    with pytest.raises(DigestMismatch, match=f"{DIGEST} .*{promised}"):
        await Workers(pool, 1, cores=cores).hash(msgspec.structs.replace(job, digest=promised), progress)


@CORES
async def test_hashing_ends_with_a_download_that_fails(
    pool: ExtractorPool, job: HashJob, progress: Progress, cores: int
) -> None:
    async def fail() -> None:
        await trio.sleep(0.2)
        progress.abort()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        with pytest.raises(LayerfsError, match="aborted"):
            await Workers(pool, 1, cores=cores).hash(job, progress)


async def test_two_cores_are_left_to_the_download_and_to_callers(
    pool: ExtractorPool, job: HashJob, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = pool.acquire

    def acquire() -> Extractor:
        asked.append(progress.ended)
        return real()

    monkeypatch.setattr(pool, "acquire", acquire)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Workers(pool, 1, cores=2).hash, job, progress)
        progress.advance(len(BLOB))
        await trio.testing.wait_all_tasks_blocked(0.1)
        progress.complete(len(BLOB))
    assert asked == ["complete"]


async def test_a_third_core_hashes_what_has_come(
    pool: ExtractorPool, job: HashJob, progress: Progress
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Workers(pool, 1, cores=3).hash, job, progress)
        progress.advance(1)
        await until_there_is_a_worker()
        progress.complete(len(BLOB))
