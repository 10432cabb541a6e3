"""`max_bandwidth`: all connections together bring no more than that, and none is passed by."""

import os

import trio

from layerfs.oci import Descriptor
from layerfs.registry.bandwidth import Bandwidth
from layerfs.registry.client import RegistryClient
from tests.support.faulty_registry import FaultyRegistry
from tests.support.registry_client import download, quick


async def test_all_readers_share_the_rate_in_turns(autojump_clock: object) -> None:
    bandwidth = Bandwidth(1000)
    taken = {"a": 0, "b": 0}

    async def read(name: str) -> None:
        while True:
            await bandwidth.take(100)
            taken[name] += 100

    with trio.move_on_after(10.05):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "a")
            nursery.start_soon(read, "b")
    assert 10_000 <= sum(taken.values()) <= 10_200
    assert abs(taken["a"] - taken["b"]) <= 100


async def test_a_rest_saves_up_little(autojump_clock: object) -> None:
    bandwidth = Bandwidth(1000)
    await bandwidth.take(1)
    await trio.sleep(100)
    began = trio.current_time()
    await bandwidth.take(1100)
    assert 0.9 < trio.current_time() - began < 1.1


async def test_no_limit_is_none(autojump_clock: object) -> None:
    bandwidth = Bandwidth(None)
    began = trio.current_time()
    await bandwidth.take(1 << 40)
    assert trio.current_time() == began


async def test_bodies_of_a_registry_count(faulty: FaultyRegistry) -> None:
    content = os.urandom(300_000)
    digest = faulty.push_blob(content)
    descriptor = Descriptor("application/octet-stream", digest, len(content))
    async with RegistryClient(quick(max_bandwidth=1_000_000)) as client:
        began = trio.current_time()
        _, found = await download(client, faulty.repository("a/b"), descriptor)
        assert trio.current_time() - began >= 0.19
    assert found == content
