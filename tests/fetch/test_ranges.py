"""A part of a blob: from a registry through the downloader process, from an archive, and from odd servers."""

from pathlib import Path

import pytest

from layerfs.errors import RegistryMisbehaved, Unreachable
from layerfs.fetch.operations import RANGE_MAX, ReadRange
from layerfs.fetch.origin import InProcess
from layerfs.fetch.remote import open_remote
from layerfs.local import SourceName, open_source
from layerfs.local.origin import LocalOrigin
from layerfs.oci import Descriptor, Repository
from layerfs.registry import RegistrySettings
from layerfs.registry.client import RegistryClient
from tests.support import images
from tests.support.faulty_registry import FaultyRegistry
from tests.support.registry import Registry
from tests.support.registry_client import quick

LAYER = images.layer(images.file("a", bytes(range(256)) * 4000), compression="none")
PARTS = [(0, 10), (1, 1), (70_000, 300_000), (LAYER.size - 5, 100), (LAYER.size, 3), (7, 0), (0, 1 << 40)]


async def test_the_downloader_reads_parts_of_a_blob_of_a_real_registry(registry: Registry) -> None:
    reference = registry.push("fetch/ranges", "1", images.image(LAYER))
    since = registry.mark()
    async with open_remote(RegistrySettings()) as remote:
        for start, length in PARTS:
            question = ReadRange(reference.repository, LAYER.descriptor(), start, length)
            assert await remote.ask(question) == LAYER.blob[start : start + length]
    statuses = [request.status for request in registry.requests(since) if "/blobs/" in request.path]
    assert statuses.count(206) >= 4, "the registry was not asked for a part"


async def test_an_archive_has_parts_too(tmp_path: Path) -> None:
    built = images.image(LAYER)
    path = images.write_layout(tmp_path / "lay", built)
    origin = InProcess(LocalOrigin(open_source(SourceName.parse(f"oci:{path}")), "oci:lay", {}))
    for start, length in PARTS:
        question = ReadRange(Repository.parse("a/b"), LAYER.descriptor(), start, length)
        assert await origin.ask(question) == LAYER.blob[start : start + length]


@pytest.mark.parametrize("switch", ["ignore_range", "refuse_range"])
async def test_a_server_without_ranges_costs_only_time(faulty: FaultyRegistry, switch: str) -> None:
    content = bytes(range(256)) * 1000
    blob = Descriptor("", faulty.push_blob(content), len(content))
    setattr(faulty.faults, switch, True)
    async with RegistryClient(quick()) as client:
        found = await InProcess(client).ask(ReadRange(faulty.repository("a/b"), blob, 1000, 500))
    assert found == content[1000:1500]


async def test_a_part_that_breaks_off_is_no_answer(faulty: FaultyRegistry) -> None:
    content = bytes(range(256)) * 1000
    blob = Descriptor("", faulty.push_blob(content), len(content))
    question = ReadRange(faulty.repository("a/b"), blob, 1000, 500)
    async with RegistryClient(quick()) as client:
        origin = InProcess(client)
        faulty.faults.cut_blobs = [100]
        with pytest.raises(Unreachable):
            await origin.ask(question)
        faulty.faults.short_blobs = [100]
        with pytest.raises(RegistryMisbehaved):
            await origin.ask(question)
        assert await origin.ask(question) == content[1000:1500]


async def test_no_more_is_read_than_travels_in_one_message(faulty: FaultyRegistry) -> None:
    content = bytes(RANGE_MAX + 1)
    blob = Descriptor("", faulty.push_blob(content), len(content))
    async with open_remote(RegistrySettings()) as remote:
        found = await remote.ask(ReadRange(faulty.repository("a/b"), blob, 0, len(content)))
    assert len(found) == RANGE_MAX
