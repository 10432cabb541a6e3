"""What strangers try on a server, and that an honest client is served beside it and after it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from layerfs.serve.limits import Patience, ServerLimits
from layerfs.serve.server import Visitors
from tests.serve.scene import LARGE, SMALL, Scene, request, served

HONEST = f"/v2/team/app/blobs/{SMALL.digest}"
QUICK = ServerLimits(head_seconds=0.3, idle_seconds=0.3, patience_seconds=0.3, least=64 << 20, connections=16)
"""No patience: what takes long in life takes a moment here."""
SECOND = b"GET /v2/team/app/manifests/1 HTTP/1.1\r\nHost: node.test\r\n\r\n"


@asynccontextmanager
async def attacked(store: Path, limits: ServerLimits) -> AsyncIterator[Scene]:
    """Yield a server; an honest client is served afterwards."""
    async with served(store, limits=limits) as scene:
        yield scene
        answer = await scene.ask(HONEST)
        assert (answer.status, answer.body) == (200, SMALL.blob)


def with_head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


SMUGGLED = {
    "length and chunks": ("Content-Length: 4", "Transfer-Encoding: chunked"),
    "chunks": ("Transfer-Encoding: chunked",),
    "chunks, spelled oddly": ("Transfer-Encoding: Chunked",),
    "chunks twice": ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    "chunks behind a blank": ("Transfer-Encoding : chunked",),
    "chunks behind a tab": ("Transfer-Encoding:\tchunked",),
    "chunks in a folded line": ("Transfer-Encoding:\r\n chunked",),
    "two lengths": ("Content-Length: 0", "Content-Length: 60"),
    "two lengths in one": ("Content-Length: 0, 60",),
    "a length with a sign": ("Content-Length: +60",),
    "a negative length": ("Content-Length: -1",),
    "a length in hex": ("Content-Length: 0x3c",),
    "a length of many digits": (f"Content-Length: {'9' * 400}",),
    "a length": (f"Content-Length: {len(SECOND)}",),
}


@pytest.mark.parametrize("headers", SMUGGLED.values(), ids=SMUGGLED)
async def test_no_request_is_smuggled_in_the_body_of_another(store: Path, headers: tuple[str, ...]) -> None:
    async with attacked(store, ServerLimits()) as scene:
        raw = await scene.say(with_head("GET /v2/ HTTP/1.1", "Host: node.test", *headers) + SECOND)

    assert raw.count(b"HTTP/1.1 ") == 1
    assert raw.split(b" ")[1] in (b"400", b"413", b"501")
    assert b"connection: close" in raw.lower()
    assert b"Docker-Content-Digest" not in raw


MALFORMED = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 60 + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /v2/\r\n\r\n",
    "HTTP/9.9": b"GET /v2/ HTTP/9.9\r\nHost: a\r\n\r\n",
    "no host": b"GET /v2/ HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a line feed in the target": b"GET /v2/\nX: y HTTP/1.1\r\nHost: a\r\n\r\n",
    "a zero byte": b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
    "a return alone": b"GET /v2/ HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "a target of 1 MiB": b"GET /v2/" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a header of 1 MiB": b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n",
    "headers without end": b"GET /v2/ HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * (1 << 17),
    "a method of 1 MiB": b"A" * (1 << 20) + b" /v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "blank lines": b"\r\n" * (1 << 19),
    "a tunnel": b"CONNECT internal.test:22 HTTP/1.1\r\nHost: a\r\n\r\n",
    "as of a proxy": b"GET http://169.254.169.254/latest/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "an upgrade": with_head(
        "GET /v2/ HTTP/1.1", "Host: a", "Connection: upgrade, close", "Upgrade: h2c", "HTTP2-Settings: AAAA"
    ),
    "an expectation": with_head("PUT /v2/a HTTP/1.1", "Host: a", "Expect: 100-continue", "Content-Length: 9"),
}


@pytest.mark.parametrize(("name", "data"), MALFORMED.items(), ids=MALFORMED)
async def test_what_is_no_request_is_an_error_and_the_end(store: Path, name: str, data: bytes) -> None:
    async with attacked(store, ServerLimits(head_seconds=2, idle_seconds=2)) as scene:
        raw = await scene.say(data)

    assert raw.count(b"HTTP/1.1 ") <= 1
    expected = (b"2",) if name == "an upgrade" else (b"4", b"5")
    assert not raw or raw[9:10] in expected, raw[:200]


TRAVERSALS = (
    "/v2/../../../../etc/passwd",
    "/v2/a/manifests/../../../../etc/passwd",
    "/v2/a/blobs/../../../owner.json",
    "/v2/..%2f..%2fowner.json/manifests/1",
    "/v2/%2e%2e/%2e%2e/manifests/owner.json",
    "/v2/a/manifests/..%00",
    "/v2/a/blobs/sha256:%2e%2e%2f%2e%2e%2fowner.json",
    "/v2/a/manifests/1?ns=..%2f..%2f",
    "/v2/a/manifests/1?ns=../../local",
    "/v2/a/tags/list?ns=registry.test/../..",
    "/v2/a/tags/list?last=../../..",
    "//v2/a/manifests/1",
    "/v2/registry.test/../private/app/manifests/1",
)


@pytest.mark.parametrize("target", TRAVERSALS)
async def test_no_name_leads_out_of_the_store(store: Path, target: str) -> None:
    async with attacked(store, ServerLimits()) as scene:
        answer = await scene.ask(target)

    assert answer.status in (400, 404)
    assert b"errors" in answer.body


SLOW = {
    "says nothing": b"",
    "half a request line": b"GET /v2",
    "half a head": b"GET /v2/ HTTP/1.1\r\nHost: a\r\n",
    "a request and half of another": request("/v2/") + b"GET /v2",
}


@pytest.mark.parametrize("data", SLOW.values(), ids=SLOW)
async def test_who_says_no_more_is_let_go(store: Path, data: bytes) -> None:
    async with attacked(store, QUICK) as scene:
        raw = await scene.say(data)

    assert raw.count(b" 408 ") == (0 if not data else 1)


async def test_who_sends_a_byte_at_a_time_is_let_go(store: Path) -> None:
    async with attacked(store, QUICK) as scene, await scene.connect() as stream:
        with trio.fail_after(30):
            await _dribble(stream)


async def _dribble(stream: trio.SocketStream) -> None:
    """Send bytes until nobody takes them: each is news, and all together are no request in time."""
    with suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(b"G")
            await trio.sleep(0.05)


@pytest.mark.parametrize("number", [1, 12])
async def test_who_reads_nothing_of_a_blob_is_let_go(store: Path, number: int) -> None:
    """Of a hundred requests that wait behind each other the first one is enough."""
    async with attacked(store, QUICK) as scene, AsyncExitStack() as held:
        streams = [await held.enter_async_context(await scene.connect()) for _ in range(number)]
        for stream in streams[:8]:
            await stream.send_all(request(f"/v2/team/app/blobs/{LARGE.digest}") * 100)
        await _until_nothing_is_sent(scene)


async def _until_nothing_is_sent(scene: Scene) -> None:
    """Return once no blob is leased."""
    with trio.fail_after(60):
        while await trio.to_thread.run_sync(scene.storage.leases.holding):
            await trio.lowlevel.checkpoint()


async def test_one_address_cannot_take_all_connections(store: Path) -> None:
    limits = ServerLimits(connections=64)
    async with attacked(store, limits) as scene, AsyncExitStack() as held:
        streams = []
        for _ in range(limits.of_a_peer):
            stream = await held.enter_async_context(await scene.connect())
            await stream.send_all(request("/v2/"))
            await stream.receive_some()
            streams.append(stream)
        refused = await scene.ask("/v2/")
        assert refused.status == 429
        assert refused.headers["retry-after"] == "1"
        await streams.pop().aclose()
        with trio.fail_after(30):  # until the server has seen that
            while (await scene.ask("/v2/")).status == 429:
                pass
        await held.aclose()
        with trio.fail_after(30):
            while (await scene.ask("/v2/")).status == 429:
                pass


async def test_thousands_of_connections_are_turned_away(store: Path) -> None:
    async with attacked(store, QUICK) as scene, trio.open_nursery() as nursery:
        limit = trio.CapacityLimiter(100)

        async def knock() -> None:
            async with limit:
                await scene.say(request("/v2/", "Connection: close"))

        for _ in range(500):
            nursery.start_soon(knock)


def test_all_together_have_a_limit_too() -> None:
    visitors = Visitors(ServerLimits(connections=2))
    with visitors.one("a", counted=True) as first, visitors.one("b", counted=True) as second:
        with visitors.one("c", counted=True) as third:
            assert third is not None
            assert third.status == 503
        assert first is second is None
    assert len(visitors) == 0


def test_patience_is_not_saved_up() -> None:
    patience = Patience(least=1000, most=10)
    patience.spend(1, 1_000_000_000)
    assert patience.seconds == 10
    patience.spend(6, 1000)
    assert patience.seconds == 5
    patience.spend(6, 0)
    assert patience.seconds < 0


GIANTS = ("bytes=0-" + "9" * 500, "bytes=" + ",".join("0-" for _ in range(1000)), "bytes=-" + "9" * 18)


@pytest.mark.parametrize("asked", GIANTS, ids=["of many digits", "a thousand", "behind the beginning"])
async def test_no_range_gets_more_than_the_blob(store: Path, asked: str) -> None:
    async with attacked(store, ServerLimits()) as scene:
        answer = await scene.ask(HONEST, f"Range: {asked}")

    assert (answer.status, answer.body) in ((200, SMALL.blob), (206, SMALL.blob))


async def test_a_reader_that_goes_in_the_middle_costs_nothing_more(store: Path) -> None:
    async with attacked(store, ServerLimits()) as scene:
        for _ in range(20):
            async with await scene.connect() as stream:
                await stream.send_all(request(f"/v2/team/app/blobs/{LARGE.digest}"))
                await stream.receive_some(1)
        await _until_nothing_is_sent(scene)


async def test_a_connection_does_not_live_for_ever(store: Path) -> None:
    async with attacked(store, ServerLimits(requests=3)) as scene:
        raw = await scene.say(request("/v2/") * 10)

    assert raw.count(b"HTTP/1.1 200") == 3
    assert raw.lower().count(b"connection: close") == 1
