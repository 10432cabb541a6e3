"""How much of the client one site gets, however many names it has. The servers are real, names are free."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from layerfs.oci import Repository
from layerfs.registry.client import RegistryClient
from layerfs.registry.places import CONNECTING, REMEMBERED, UNKNOWN, Crowded, Places, Sites
from layerfs.registry.reach import site_of
from tests.support.faulty_registry import FaultyRegistry
from tests.support.images import file, image, layer
from tests.support.proxy import Proxy
from tests.support.registry_client import download, quick

BUILT = image(layer(file("a", b"first")))
BLOB = BUILT.layers[0].descriptor()
NAMES = 60


class Names(trio.abc.HostnameResolver):
    """All names are at one address; that of the moment."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.address, int(port)))]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


@pytest.fixture
def silent() -> Iterator[FaultyRegistry]:
    """A registry at an address of its own that holds back all blobs."""
    with FaultyRegistry(address="127.0.0.2") as running:
        running.push("a/b", "1", BUILT)
        running.faults.hold_blobs = threading.Event()
        yield running


async def until(count: Any, least: int) -> None:
    with trio.fail_after(20):
        while count() < least:  # noqa: ASYNC110 - the server is in another thread
            await trio.sleep(0.01)


async def test_names_are_free(faulty: FaultyRegistry, silent: FaultyRegistry) -> None:
    """Sixty names of one silent registry have its share of connections, and an honest one has its own."""
    honest = faulty.push("a/b", "1", BUILT)
    trio.socket.set_custom_hostname_resolver(Names("127.0.0.2"))
    async with RegistryClient(quick(downloads_per_site=3)) as client, trio.open_nursery() as nursery:
        for number in range(NAMES):
            name = f"n{number}.localhost:{silent.main.port}"
            for _ in range(2):
                nursery.start_soon(download, client, Repository.of(name, "a/b"), BLOB)
        await until(lambda: silent.downloads_at_once, 3)
        with trio.fail_after(10):
            assert (await download(client, honest, BLOB))[1] == BUILT.layers[0].blob
        assert {await client.locate(f"n{number}.localhost") for number in range(3)} == {"127.0.0.2"}
        silent.faults.hold_blobs.set()  # type: ignore[union-attr]
    assert silent.downloads_at_once == 3, "more connections than a site may have"


async def test_ports_are_free() -> None:
    with contextlib.ExitStack() as stack:
        hold = threading.Event()
        registries = [stack.enter_context(FaultyRegistry(address="127.0.0.2")) for _ in range(8)]
        for one in registries:
            one.push("a/b", "1", BUILT)
            one.faults.hold_blobs = hold
        async with RegistryClient(quick(downloads_per_site=3)) as client, trio.open_nursery() as nursery:
            for one in registries:
                nursery.start_soon(download, client, one.repository("a/b"), BLOB)
            await until(lambda: sum(one.downloads_at_once for one in registries), 3)
            await trio.sleep(0.2)
            assert sum(one.downloads_at_once for one in registries) == 3
            hold.set()


async def test_a_name_that_moves_counts_where_it_went(silent: FaultyRegistry) -> None:
    """What a name showed of itself before it took anything is no way out of the share."""
    names = Names("127.0.0.2")
    trio.socket.set_custom_hostname_resolver(names)
    async with RegistryClient(quick(downloads_per_site=1)) as client, trio.open_nursery() as nursery:
        with FaultyRegistry(address="127.0.0.3") as decoy:
            names.address = "127.0.0.3"
            for number in range(4):
                host = f"n{number}.localhost:{decoy.main.port}"
                with contextlib.suppress(Exception):
                    await client.resolve(Repository.of(host, "a/b").with_tag("1"))
                assert await client.locate(host) == "127.0.0.3"
        names.address = "127.0.0.2"
        for number in range(4):
            host = f"n{number}.localhost:{silent.main.port}"
            nursery.start_soon(download, client, Repository.of(host, "a/b"), BLOB)
        await until(lambda: silent.downloads_at_once, 1)
        await trio.sleep(0.2)
        assert silent.downloads_at_once == 1
        silent.faults.hold_blobs.set()  # type: ignore[union-attr]


async def test_behind_a_proxy_each_host_is_a_site(faulty: FaultyRegistry) -> None:
    """Only the proxy knows addresses: a host, however it is written, has one share."""
    hosts = ("a.test", "A.test", "b.test")
    faulty.push("a/b", "1", BUILT)
    faulty.faults.hold_blobs = hold = threading.Event()
    with Proxy(dict.fromkeys(("a.test", "b.test"), faulty.main.port)) as proxy:
        environment = {"http_proxy": proxy.url, "HTTPS_PROXY": proxy.url}
        settings = quick(downloads_per_site=1, environment=environment, insecure=frozenset(hosts))
        async with RegistryClient(settings) as client, trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(download, client, Repository.of(host, "a/b"), BLOB)
            await until(lambda: faulty.downloads_at_once, 2)
            await trio.sleep(0.2)
            assert faulty.downloads_at_once == 2
            hold.set()


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_what_counts_as_one_site(address: str, site: str) -> None:
    assert site_of(address) == site


async def test_a_place_moves_or_is_waited_for() -> None:
    places = Places(1, Sites())
    first, second = await places.take("a"), await places.take("b")
    first.move("x")
    first.move("x")
    with pytest.raises(Crowded):
        second.move("x")
    first.release()
    second.move("x")
    with pytest.raises(trio.WouldBlock):
        places.of("x").acquire_nowait()
    assert places.of(UNKNOWN).value == CONNECTING
    second.release()
    del first, second
    assert len(places._of_sites) <= 1, "sites that nobody asks are remembered"


async def test_only_so_many_hosts_are_remembered() -> None:
    sites = Sites()
    for number in range(REMEMBERED + 1):
        sites.learn(str(number), "x")
    assert sites.of("0") == UNKNOWN
    assert sites.of("1") == sites.of(str(REMEMBERED)) == "x"
