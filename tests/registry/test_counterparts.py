"""Real servers before a real registry, and podman beside layerfs: logs say what is asked, and of whom."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from layerfs.errors import LayerfsError, NoRanges
from layerfs.oci import Repository
from layerfs.registry import RegistrySettings
from layerfs.registry.client import RegistryClient
from layerfs.registry.mirrors import places
from tests.support.faulty_registry import Answer, FaultyRegistry
from tests.support.images import file, image, layer
from tests.support.nginx import CACHING, NO_RANGES, nginx
from tests.support.registry import Registry
from tests.support.registry_client import download, quick

BUILT = image(layer(file("a", os.urandom(3 << 20)), compression="none"))
CONTENT = BUILT.layers[0].blob
BLOB = BUILT.layers[0].descriptor()


def before(host: str, registry: str, tmp_path: Path) -> RegistrySettings:
    """Make settings of a hosts.toml that puts the server at *host* before *registry*."""
    directory = tmp_path / "certs.d" / registry
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "hosts.toml").write_text(f'[host."http://{host}"]\n')
    return quick(mirrors=places.load({}, Path("/dev/null"), tmp_path / "certs.d"))


async def pull(settings: RegistrySettings, repository: Repository, offset: int = 0) -> tuple[int, bytes]:
    async with RegistryClient(settings) as client:
        digest = (await client.resolve(repository.with_tag("1"))).digest
        await client.fetch_manifest(repository, digest)
        return await download(client, repository, BLOB, offset)


@pytest.fixture
def proxy(tmp_path: Path, own_registry: Registry) -> Iterator[Registry]:
    """Debian's docker-registry as a proxy with a cache."""
    with Registry(tmp_path / "proxy", own_registry.host) as running:
        yield running


async def test_what_a_proxy_has_fetched_costs_the_registry_nothing_more(
    tmp_path: Path, own_registry: Registry, proxy: Registry
) -> None:
    """For the first who asks, version 2.8 fetches a layer twice: for its answer, and for its cache."""
    own_registry.push("a/b", "1", BUILT)
    mark = own_registry.mark()
    settings = before(proxy.host, own_registry.host, tmp_path)
    assert await pull(settings, own_registry.repository("a/b")) == (0, CONTENT)
    proxy.mark()  # it has nothing more to do
    first = own_registry.blob_requests(mark)
    assert await pull(settings, own_registry.repository("a/b")) == (0, CONTENT)
    assert own_registry.blob_requests(mark) == first
    assert set(first) == {BLOB.digest}


async def test_a_proxy_that_has_not_got_it_sends_the_whole_for_a_range(
    tmp_path: Path, own_registry: Registry, proxy: Registry
) -> None:
    own_registry.push("a/b", "1", BUILT)
    settings = before(proxy.host, own_registry.host, tmp_path)
    assert await pull(settings, own_registry.repository("a/b"), 1000) == (0, CONTENT)
    proxy.mark()
    assert await pull(settings, own_registry.repository("a/b"), 1000) == (1000, CONTENT[1000:])


async def test_a_proxy_that_dies_in_the_middle_is_left_for_the_registry(
    tmp_path: Path, own_registry: Registry, proxy: Registry
) -> None:
    own_registry.push("a/b", "1", BUILT)
    repository = own_registry.repository("a/b")
    async with RegistryClient(before(proxy.host, own_registry.host, tmp_path)) as client:
        async with client.stream_blob(repository, BLOB) as stream:
            got = await anext(aiter(stream))
            proxy.stop()
            try:
                got += b"".join([chunk async for chunk in stream])
            except LayerfsError:
                assert len(got) < len(CONTENT)
        if len(got) < len(CONTENT):
            start, rest = await download(client, repository, BLOB, len(got))
            got = got[:start] + rest
        assert got == CONTENT
        assert (await client.resolve(repository.with_tag("1"))).digest == BUILT.digest


@pytest.mark.usefixtures("has_nginx")
async def test_of_an_nginx_with_a_cache_two_nodes_cost_the_registry_one_download(
    tmp_path: Path, own_registry: Registry
) -> None:
    own_registry.push("a/b", "1", BUILT)
    mark = own_registry.mark()
    with nginx(tmp_path / "nginx", own_registry.host, CACHING) as host:
        settings = before(host, own_registry.host, tmp_path)
        for offset in (0, 0, 1000):
            assert await pull(settings, own_registry.repository("a/b"), offset) == (offset, CONTENT[offset:])
    assert own_registry.blob_requests(mark) == [BLOB.digest]


@pytest.mark.usefixtures("has_nginx")
async def test_an_nginx_that_strips_ranges_sends_the_whole(tmp_path: Path, own_registry: Registry) -> None:
    own_registry.push("a/b", "1", BUILT)
    repository = own_registry.repository("a/b")
    with nginx(tmp_path / "nginx", own_registry.host, NO_RANGES) as host:
        settings = before(host, own_registry.host, tmp_path)
        assert await pull(settings, repository, 1000) == (0, CONTENT)
        async with RegistryClient(settings) as client:
            with pytest.raises(NoRanges):
                async with client.stream_range(repository, BLOB, 1000, 2000):
                    pass


MIRRORS = """
[[registry]]
prefix = "{registry}/team"
location = "{registry}/{group}"
insecure = true
{registry_more}
[[registry.mirror]]
location = "{one}/first"
insecure = true
{one_more}
[[registry.mirror]]
location = "{two}/second"
insecure = true
{two_more}
"""
CASES = {
    "the second has it": ({"two"}, {}),
    "nobody but the registry has it": ({"registry"}, {}),
    "all have it": ({"one", "two", "registry"}, {}),
    "nobody has it": (set[str](), {}),
    "the first is for digests": ({"one", "two"}, {"one_more": 'pull-from-mirror = "digest-only"'}),
    "mirrors are for digests": ({"one", "registry"}, {"registry_more": "mirror-by-digest-only = true"}),
    "the first is for tags": ({"one", "two", "registry"}, {"one_more": 'pull-from-mirror = "tag-only"'}),
    "the first fails": ({"two"}, {"fails": "one"}),
    "blocked, and a mirror has it": ({"two"}, {"registry_more": "blocked = true"}),
    "blocked, and no mirror has it": ({"registry"}, {"registry_more": "blocked = true", "group": "team"}),
}


def podman_pulls(conf: Path, name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="p") as run:  # podman refuses a longer path
        words = ["--root", f"{run}/root", "--runroot", f"{run}/run", "--storage-driver", "vfs", "pull", "-q"]
        said = {"CONTAINERS_REGISTRIES_CONF": str(conf)}
        subprocess.run(["podman", *words, name], env=os.environ | said, capture_output=True)


async def layerfs_pulls(conf: Path, repository: Repository, by_tag: bool) -> None:
    """Ask for the manifest alone: podman has the rest of the server that gave it."""
    found = places.load({"CONTAINERS_REGISTRIES_CONF": str(conf), "HOME": "/nowhere"}, None, conf.parent)
    async with RegistryClient(quick(mirrors=found)) as client:
        try:
            if by_tag:
                await client.resolve(repository.with_tag("1"))
            else:
                await client.fetch_manifest(repository, BUILT.digest)
        except LayerfsError:
            pass


def order(servers: dict[str, FaultyRegistry], since: float) -> list[str]:
    """Return which manifests were asked for, of whom, once each, in the order of the first time."""
    found = sorted(
        (one.at, f"{name}{one.path}")
        for name, server in servers.items()
        for one in server.asked
        if one.at > since and "/manifests/" in one.path
    )
    return list(dict.fromkeys(asked for _, asked in found))


@pytest.mark.parametrize("by_tag", [True, pytest.param(False, marks=pytest.mark.long)])
@pytest.mark.parametrize("case", CASES)
async def test_podman_asks_the_same_hosts_by_the_same_file(tmp_path: Path, case: str, by_tag: bool) -> None:
    having, said = CASES[case]
    with ExitStack() as stack:
        servers = {name: stack.enter_context(FaultyRegistry()) for name in ("one", "two", "registry")}
        for name, path in (("one", "first"), ("two", "second"), ("registry", said.get("group", "group"))):
            if name in having:
                servers[name].push(f"{path}/b", "1", BUILT)
        if (failing := said.get("fails")) is not None:
            servers[failing].faults.always = [("/manifests/", Answer(500))]
        hosts = {name: server.host for name, server in servers.items()}
        more = dict.fromkeys(("registry_more", "one_more", "two_more"), "") | {"group": "group"} | said
        (tmp_path / "registries.conf").write_text(MIRRORS.format(**hosts, **more))
        target = ":1" if by_tag else f"@{BUILT.digest}"

        podman_pulls(tmp_path / "registries.conf", f"{hosts['registry']}/team/b{target}")
        theirs, since = order(servers, 0), time.monotonic()
        await layerfs_pulls(tmp_path / "registries.conf", Repository.of(hosts["registry"], "team/b"), by_tag)
        ours = order(servers, since)

    assert ours == theirs
    assert theirs
    assert not case.startswith("blocked") or "registry" not in theirs[-1]
