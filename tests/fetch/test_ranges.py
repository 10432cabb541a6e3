"""A part of a blob: from a registry through the downloader process, from an archive, and from odd servers."""

import os
from pathlib import Path

import pytest

from layerfs.errors import Denied, NotFound, RegistryError, RegistryMisbehaved, Unreachable
from layerfs.fetch.operations import WASTED_MAX, ReceiveRange
from layerfs.fetch.origin import InProcess, Origin
from layerfs.fetch.remote import open_remote
from layerfs.local import SourceName, open_source
from layerfs.local.origin import LocalOrigin
from layerfs.oci import Descriptor, Repository
from layerfs.registry import RegistrySettings, RetryPolicy
from layerfs.registry.client import RegistryClient
from tests.support import images
from tests.support.faulty_registry import FaultyRegistry
from tests.support.registry import Registry
from tests.support.registry_client import quick

LAYER = images.layer(images.file("a", bytes(range(256)) * 4000), compression="none")
PARTS = [(0, 10), (1, 2), (70_000, 370_000), (LAYER.size - 5, LAYER.size)]


async def received(
    origin: Origin, repository: Repository, blob: Descriptor, start: int, end: int, at: int = 0
) -> bytes | None:
    """Return what a file holds once a part was received into it from *at* on; None without ranges."""
    fd = os.memfd_create("part")
    try:
        told: list[int] = []
        question = ReceiveRange(repository, blob, start, end, at, "part")
        done = await origin.ask(question, (fd,), told.append)
        assert told == sorted(set(told))
        assert not told or told[-1] < end - start, "of the last byte the answer tells"
        return os.pread(fd, end - start + 1, at) if done else None
    finally:
        os.close(fd)


async def test_the_downloader_receives_parts_of_a_blob_of_a_real_registry(registry: Registry) -> None:
    reference = registry.push("fetch/ranges", "1", images.image(LAYER))
    since = registry.mark()
    async with open_remote(RegistrySettings()) as remote:
        for start, end in PARTS:
            found = await received(remote, reference.repository, LAYER.descriptor(), start, end, at=5)
            assert found == LAYER.blob[start:end]
    statuses = [request.status for request in registry.requests(since) if "/blobs/" in request.path]
    assert statuses == [206] * len(PARTS)


async def test_an_archive_has_parts_too(tmp_path: Path) -> None:
    built = images.image(LAYER)
    path = images.write_layout(tmp_path / "lay", built)
    origin = InProcess(LocalOrigin(open_source(SourceName.parse(f"oci:{path}")), "oci:lay", {}))
    for start, end in PARTS:
        found = await received(origin, Repository.parse("a/b"), LAYER.descriptor(), start, end)
        assert found == LAYER.blob[start:end]


@pytest.mark.parametrize("status", [200, 400, 405, 501])
async def test_a_server_without_ranges_is_found_out(faulty: FaultyRegistry, status: int) -> None:
    content = bytes(range(256)) * 8000
    blob = Descriptor("", faulty.push_blob(content), len(content))
    faulty.faults.ignore_range = status == 200
    faulty.faults.refuse_range = status != 200
    faulty.faults.range_status = status
    async with RegistryClient(quick()) as client:
        origin = InProcess(client)
        near = await received(origin, faulty.repository("a/b"), blob, 1000, 1500)
        far = await received(origin, faulty.repository("a/b"), blob, WASTED_MAX + 1, WASTED_MAX + 100)
    assert near == content[1000:1500], "passing over a little costs less than another request"
    assert far is None


@pytest.mark.parametrize(
    ("status", "error"),
    [
        pytest.param(403, Denied, id="denied"),
        pytest.param(404, NotFound, id="gone"),
        pytest.param(416, RegistryMisbehaved, id="another size"),
        pytest.param(500, RegistryMisbehaved, id="a fault of its own"),
        pytest.param(503, Unreachable, id="not in service"),
    ],
)
async def test_a_refusal_of_a_range_is_what_it_is(
    faulty: FaultyRegistry, status: int, error: type[RegistryError]
) -> None:
    content = bytes(range(256)) * 8000
    blob = Descriptor("", faulty.push_blob(content), len(content))
    faulty.faults.refuse_range, faulty.faults.range_status = True, status
    async with RegistryClient(quick(retry=RetryPolicy(attempts=1))) as client:
        origin = InProcess(client)
        with pytest.raises(error, match=f"status {status}"):
            await received(origin, faulty.repository("a/b"), blob, 1000, 1500)
        faulty.faults.refuse_range = False
        assert await received(origin, faulty.repository("a/b"), blob, 1000, 1500) == content[1000:1500]


async def test_a_shifted_part_is_no_sign_of_a_server_without_ranges(faulty: FaultyRegistry) -> None:
    content = bytes(range(256)) * 8000
    blob = Descriptor("", faulty.push_blob(content), len(content))
    faulty.faults.content_range = f"bytes 7-506/{len(content)}"
    async with RegistryClient(quick(retry=RetryPolicy(attempts=1))) as client:
        with pytest.raises(RegistryMisbehaved, match="Content-Range"):
            await received(InProcess(client), faulty.repository("a/b"), blob, 1_900_000, 1_900_500)


async def test_a_part_that_breaks_off_is_no_answer(faulty: FaultyRegistry) -> None:
    content = bytes(range(256)) * 1000
    blob = Descriptor("", faulty.push_blob(content), len(content))
    async with RegistryClient(quick()) as client:
        origin = InProcess(client)
        faulty.faults.cut_blobs = [100]
        with pytest.raises(Unreachable):
            await received(origin, faulty.repository("a/b"), blob, 1000, 1500)
        faulty.faults.short_blobs = [100]
        with pytest.raises(RegistryMisbehaved):
            await received(origin, faulty.repository("a/b"), blob, 1000, 1500)
        assert await received(origin, faulty.repository("a/b"), blob, 1000, 1500) == content[1000:1500]
