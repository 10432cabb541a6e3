"""What a server says of itself at /metrics, and to whom."""

import os
import tempfile
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families

from layerfs.serve.counts import ServerCounts
from layerfs.serve.replies import Refused
from layerfs.serving import ServerMetrics
from layerfs.settings import Audience, Settings
from tests.serve.scene import IMAGE, LARGE, SMALL, served
from tests.support import clients
from tests.support.daemon import running
from tests.support.images import image
from tests.support.nodes import fleet
from tests.support.registry import Registry
from tests.support.serving import serving
from tests.test_metrics import values

PROXIED = "X-Forwarded-For: 203.0.113.7"


@pytest.mark.parametrize(
    ("audience", "headers", "status"),
    [
        pytest.param("off", (), 404, id="nobody"),
        pytest.param("local", (), 200, id="a process of this machine"),
        pytest.param("local", (PROXIED,), 404, id="a stranger through a proxy of this machine"),
        pytest.param("local", ("Forwarded: for=203.0.113.7",), 404, id="RFC 7239"),
        pytest.param("local", ("Via: 1.1 proxy",), 404, id="RFC 9110"),
        pytest.param("all", (PROXIED,), 200, id="everybody"),
    ],
)
async def test_metrics_are_for_whom_the_settings_say(
    store: Path, audience: Audience, headers: tuple[str, ...], status: int
) -> None:
    async with served(store, audience=audience) as scene:
        answer = await scene.ask("/metrics", *headers)
        other = await scene.ask("/metric", *headers)
        head = await scene.ask("/metrics", *headers, method="HEAD")
        posted = await scene.ask("/metrics", *headers, method="POST")

    assert (answer.status, head.status, posted.status) == (status, status, 405)
    if status == 404:
        assert answer.body == other.body.replace(b"/metric'", b"/metrics'"), "as what is nothing here"
    else:
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "layerfs_serve_connections" in answer.body.decode()


async def test_a_mount_that_does_not_answer_holds_nobody_up(
    tmp_path: Path, store: Path, autojump_clock: trio.testing.MockClock
) -> None:
    (tmp_path / ".layerfs").mkdir()
    fifo = tmp_path / ".layerfs/metrics"
    os.mkfifo(fifo)  # as the file of a daemon that was stopped, it has whoever opens it wait
    counts = ServerCounts("all", ServerMetrics(Settings(store=store), None, tmp_path).text)
    try:
        for _ in range(2):  # the first one's thread is still there
            with pytest.raises(Refused, match="the mount does not answer") as caught:
                await counts.read()
            assert caught.value.status == 503
    finally:
        os.close(os.open(fifo, os.O_RDWR))


async def test_one_text_is_for_all_who_ask_within_a_second(autojump_clock: trio.testing.MockClock) -> None:
    made = 0

    async def text(_: ServerCounts) -> bytes:
        nonlocal made
        made += 1
        await trio.sleep(0.1)
        return b"%d" % made

    counts = ServerCounts("all", text)
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(counts.read)
    assert made == 1
    await trio.sleep(1)
    assert (await counts.read()).body == b"2"


@pytest.mark.needs_root
def test_local_is_no_other_address_of_this_machine(tmp_path: Path) -> None:
    with (
        fleet(1, "lfmt") as machines,
        serving(tmp_path / "store", "--metrics", "local", listen=f"{machines.host}:0") as server,
    ):
        assert httpx.get(f"http://{server.address}/metrics", trust_env=False).status_code == 404


def test_a_server_counts_what_it_answers_sends_and_refuses_and_what_it_fetches(
    tmp_path: Path, registry: Registry
) -> None:
    registry.push("served/app", "1", IMAGE)
    words = ("--fetch", "--repository", f"{registry.host}/served/*", "--metrics", "all")
    with (
        serving(tmp_path / "store", *words, "--max-connections", "8") as server,
        httpx.Client(base_url=f"http://{server.address}", trust_env=False) as client,
    ):
        before = values(client.get("/metrics").content)
        for target in ("manifests/1", f"blobs/{LARGE.digest}"):
            assert client.get(f"/v2/served/app/{target}", params={"ns": registry.host}).status_code == 200
        assert client.get("/v2/other/app/tags/list", params={"ns": registry.host}).status_code == 404
        assert client.get("/nothing").status_code == 404

        def read() -> dict[tuple[str, ...], float]:
            return values(client.get("/metrics").content)

        clients.wait_until(
            lambda: ("layerfs_serve_answers_total", "kind=other", "status=404") in read()
        )  # one text is good for a second
        found = read()

    assert before["layerfs_serve_connections",] == 1
    assert before["layerfs_fetched_blobs_total",] == 0
    assert found["layerfs_serve_answers_total", "kind=blob", "status=200"] == 1
    assert found["layerfs_serve_answers_total", "kind=tags", "status=404"] == 1
    assert found["layerfs_serve_answers_total", "kind=other", "status=404"] == 1
    assert found["layerfs_serve_answers_total", "kind=metrics", "status=200"] >= 1
    assert found["layerfs_serve_sent_bytes_total",] >= LARGE.size
    assert found["layerfs_serve_refused_connections_total",] == 0
    assert found["layerfs_fetched_blobs_total",] == 1
    assert found["layerfs_received_bytes_total", "source=upstream"] >= LARGE.size


@pytest.mark.needs_root
@pytest.mark.needs_fuse
def test_a_server_beside_a_mount_tells_of_both(
    tmp_path: Path, store: Path, mountpoint: Path, registry: Registry
) -> None:
    pushed = registry.push("served/mounted", "1", image(SMALL))
    with tempfile.TemporaryDirectory(prefix="s") as short:
        path = Path(short, "serve.sock")
        configuration = tmp_path / "layerfs.toml"
        configuration.write_text(f'[serve]\nlisten = "unix:{path}"\nmetrics = "local"\nfetch = false\n')
        with (
            running(store, mountpoint, environment={"LAYERFS_CONFIG": str(configuration)}) as daemon,
            httpx.Client(transport=httpx.HTTPTransport(uds=str(path), retries=3)) as client,
        ):
            clients.wait_until(path.exists)
            assert clients.read(daemon.images / str(pushed) / "rootfs/etc/motd") == b"hello\n"
            text = client.get("http://node/metrics").content

    families = [family.name for family in text_string_to_metric_families(text.decode())]
    assert len(set(families)) == len(families), "no family twice: a server of Prometheus refuses that"
    found = values(text)
    assert found["layerfs_fetched_blobs_total",] == 1
    assert found["layerfs_requests_total", "operation=lookup"] >= 1
    assert found["layerfs_serve_connections",] == 1
