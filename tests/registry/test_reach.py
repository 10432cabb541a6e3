"""Whom strangers may have us call, and to whom they may have us show our logins.

A registry that is public stands behind a proxy here, for all servers of a test are on loopback.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
import trio

from layerfs.errors import Denied, RateLimited, RegistryError, RegistryTimeout
from layerfs.oci import Descriptor, Repository
from layerfs.registry.client import RegistryClient
from layerfs.registry.pace import Pace
from layerfs.registry.reach import Reach, common_scope, literal_address, scope_of
from tests.registry.test_auth import login
from tests.support.faulty_registry import PASSWORD, USER, Answer, FaultyRegistry, basic
from tests.support.images import file, image, layer
from tests.support.proxy import Proxy
from tests.support.registry_client import download, quick

BUILT = image(layer(file("a", b"first")))
BLOB = BUILT.layers[0].descriptor()
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
PUBLIC_NAME = "registry.test"
LOOPBACK_SPELLINGS = (
    "127.0.0.1",
    "localhost",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "2130706433",
    "127.1",
    "0x7f000001",
    "0177.0.0.1",
    "0",
    "127\u30020\u30020\u30021",
    socket.gethostname(),
)


@pytest.mark.parametrize(
    ("address", "scope"),
    [
        ("1.1.1.1", "public"),
        ("2606:4700::1", "public"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),  # RFC 6598
        ("fd00::1", "private"),
        ("224.0.0.1", "private"),
        ("255.255.255.255", "private"),
        ("169.254.169.254", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("127.0.0.1", "loopback"),
        ("127.255.0.1", "loopback"),
        ("0.0.0.0", "loopback"),
        ("0.1.2.3", "loopback"),
        ("::", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:10.0.0.1", "private"),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("2002:7f00:1::", "loopback"),
    ],
)
def test_where_an_address_is(address: str, scope: str) -> None:
    assert scope_of(address) == scope


def test_strangers_lead_to_the_public_and_to_where_they_are() -> None:
    scopes = {
        "public": "1.1.1.1",
        "private": "10.0.0.1",
        "link-local": "169.254.1.1",
        "loopback": "127.0.0.1",
    }
    for home in scopes:
        reach = Reach(home)  # type: ignore[arg-type]  # the keys are scopes
        allowed = {scope for scope, address in scopes.items() if reach.allows(address)}
        assert allowed == {"public", home}
    configured = Reach("public", (ip_network("10.0.0.0/8"),))
    assert [configured.allows(f"{start}.0.0.1") for start in ("10", "192", "127")] == [True, False, False]
    assert configured.allows("::ffff:10.0.0.1")


def test_a_host_that_is_public_too_is_public() -> None:
    assert common_scope(["127.0.0.1", "::1"]) == "loopback"
    assert common_scope(["127.0.0.1", "1.1.1.1"]) == "public"


def test_addresses_are_read_however_they_are_spelled() -> None:
    assert literal_address("0x7f.1") == literal_address("2130706433") == "127.0.0.1"
    assert literal_address("fe80::1%2") == "fe80::1"
    assert literal_address("example.org") is literal_address("localhost") is None


@pytest.fixture
def public(faulty: FaultyRegistry) -> Iterator[dict[str, str]]:
    """The environment in which *faulty* is ``registry.test``, somewhere public."""
    faulty.push("a/b", "1", BUILT)
    with Proxy({PUBLIC_NAME: faulty.main.port}) as proxy:
        direct = ",".join(host.strip("[]") for host in LOOPBACK_SPELLINGS)
        yield {"http_proxy": proxy.url, "HTTP_PROXY": proxy.url, "NO_PROXY": direct}


@pytest.mark.allow_warnings
@pytest.mark.parametrize("host", LOOPBACK_SPELLINGS)
async def test_foreign_url_ssrf(faulty: FaultyRegistry, public: dict[str, str], host: str) -> None:
    """No spelling of loopback gets a foreign layer, or what a registry redirects, asked of this machine."""
    url = f"http://{host}:{faulty.storage.port}/data/{BLOB.digest}"
    foreign = Descriptor(FOREIGN, BLOB.digest, BLOB.size, (url,))
    settings = quick(environment=public, insecure=frozenset({PUBLIC_NAME}))
    repository = Repository.of(PUBLIC_NAME, "a/b")
    async with RegistryClient(settings) as client:
        assert (await download(client, repository, foreign))[1] == BUILT.layers[0].blob
        if url.isascii():  # a header holds nothing else
            faulty.faults.redirect = lambda _: (307, url)
            with pytest.raises(RegistryError, match=r"loopback|not a URL"):
                await download(client, repository, BLOB)
    assert not faulty.storage.asked


@pytest.mark.allow_warnings
async def test_a_proxy_is_not_asked_for_addresses_that_lead_home(
    faulty: FaultyRegistry, public: dict[str, str]
) -> None:
    settings = quick(environment=public | {"NO_PROXY": ""}, insecure=frozenset({PUBLIC_NAME}))
    faulty.faults.redirect = lambda _: (307, f"http://2130706433:{faulty.storage.port}/data/{BLOB.digest}")
    repository = Repository.of(PUBLIC_NAME, "a/b")
    async with RegistryClient(settings) as client:
        with pytest.raises(Denied, match=r"127\.0\.0\.1 is loopback"):
            await download(client, repository, BLOB)
    assert not faulty.storage.asked


async def test_a_token_server_may_not_be_in_another_place_either(
    faulty: FaultyRegistry, public: dict[str, str]
) -> None:
    faulty.faults.auth = "bearer"
    faulty.faults.realm = f"http://127.0.0.1:{faulty.storage.port}/token"
    settings = quick(environment=public, insecure=frozenset({PUBLIC_NAME}))
    repository = Repository.of(PUBLIC_NAME, "a/b")
    async with RegistryClient(settings) as client:
        with pytest.raises(Denied, match="loopback"):
            await client.resolve(repository.with_tag("1"))
    assert not faulty.storage.asked


async def test_the_configuration_opens_networks(faulty: FaultyRegistry, public: dict[str, str]) -> None:
    faulty.faults.redirect_to_storage = True
    settings = quick(
        environment=public,
        insecure=frozenset({PUBLIC_NAME}),
        reachable_networks=frozenset({"127.0.0.0/8"}),
    )
    repository = Repository.of(PUBLIC_NAME, "a/b")
    async with RegistryClient(settings) as client:
        assert (await download(client, repository, BLOB))[1] == BUILT.layers[0].blob


@pytest.mark.parametrize("where", ["blob", "ping"])
@pytest.mark.parametrize("kind", ["bearer", "basic"])
async def test_creds_to_redirect_target(
    faulty: FaultyRegistry, tmp_path: Path, where: str, kind: str
) -> None:
    """A server that a registry redirects to has no say in how the registry is logged in to."""
    repository = faulty.push("a/b", "1", BUILT)
    messages = []
    with FaultyRegistry() as other:
        challenge = "Basic" if kind == "basic" else f'Bearer realm="http://{other.host}/token",service="x"'
        other.faults.always = [("", Answer(401, headers={"WWW-Authenticate": challenge}))]
        if where == "blob":
            faulty.faults.redirect = lambda path: (307, f"http://{other.host}{path}")
        else:
            other_ping = Answer(307, headers={"Location": f"http://{other.host}/v2/"})
            faulty.faults.always = [("/v2/a/b", Answer(401)), ("/v2/", other_ping)]
        async with RegistryClient(login(tmp_path, faulty.host)) as client:
            for _ in range(2):
                with pytest.raises(Denied) as caught:
                    await download(client, repository, BLOB)
                messages.append(str(caught.value))
        assert other.asked
        assert not [
            asked for asked in other.asked if asked.path == "/token" or "authorization" in asked.headers
        ]
        assert not [
            asked for asked in faulty.asked if asked.headers.get("authorization") == basic(USER, PASSWORD)
        ]
        if where == "blob":
            assert f"{other.host}, where {faulty.host} leads to, answers status 401" in messages[0]


async def test_a_pause_that_storage_asks_for_is_its_own(faulty: FaultyRegistry) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    busy = Answer(429, headers={"Retry-After": "1"})
    with FaultyRegistry() as other:
        other.faults.always = [("", busy)]
        faulty.faults.redirect = lambda path: (307, f"http://{other.host}{path}")
        async with RegistryClient(quick()) as client:
            with pytest.raises(RateLimited):
                await download(client, repository, BLOB)
            began = time.monotonic()
            await client.resolve(repository.with_tag("1"))
        assert time.monotonic() - began < 0.9


async def test_foreign_headers_slowloris(faulty: FaultyRegistry) -> None:
    """A server of foreign layers has as long for its headers as a registry has for a document."""
    repository = faulty.push("a/b", "1", BUILT)
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listener[0].socket.getsockname()[1]}/x"
    foreign = Descriptor(FOREIGN, BLOB.digest, BLOB.size, (url,))

    async def drip(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                await stream.send_all(b"a")
                await trio.sleep(0.05)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, drip, listener)
        with trio.fail_after(10):
            async with RegistryClient(quick(document_timeout=0.3)) as client:
                assert (await download(client, repository, foreign))[1] == BUILT.layers[0].blob
        nursery.cancel_scope.cancel()


async def test_a_body_that_trickles_ends(faulty: FaultyRegistry) -> None:
    """Each byte comes in time, and the whole would take for ever; what came is kept by whoever resumes."""
    repository = faulty.push("a/b", "1", BUILT)
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    storage = f"http://127.0.0.1:{listener[0].socket.getsockname()[1]}/x"

    async def trickle(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BLOB.size)
            while True:
                await stream.send_all(b"a")
                await trio.sleep(0.05)

    faulty.faults.redirect = lambda _: (307, storage)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, trickle, listener)
        async with RegistryClient(quick(idle_timeout=0.3)) as client:
            with trio.fail_after(10), pytest.raises(RegistryTimeout, match="less than 1024 bytes a second"):
                await download(client, repository, BLOB)
        nursery.cancel_scope.cancel()


def test_only_the_time_spent_waiting_counts() -> None:
    pace = Pace(least=100, window=10.0)
    assert pace.keeps(9.9, 0)
    assert not pace.keeps(0.1, 999)
    assert pace.keeps(10.0, 1000)
    assert pace.keeps(5.0, 0)
    assert pace.keeps(5.0, 1000)
