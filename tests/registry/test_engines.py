"""With servers of the manners of Dragonfly and Spegel in between: what these refuse the registry gives."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layerfs.oci import Repository
from layerfs.registry import RegistrySettings
from layerfs.registry.client import RegistryClient
from layerfs.registry.mirrors import places
from tests.support.engines import DragonflyShaped, SpegelShaped
from tests.support.faulty_registry import PASSWORD, USER, FaultyRegistry, basic
from tests.support.images import file, image, layer
from tests.support.registry_client import download, quick

BUILT = image(layer(file("a", b"first" * 1000)))
BLOB = BUILT.layers[0].descriptor()


@pytest.fixture
def dragonfly(faulty: FaultyRegistry) -> Iterator[DragonflyShaped]:
    with DragonflyShaped({faulty.host: faulty.host}) as running:
        yield running


@pytest.fixture
def spegel() -> Iterator[SpegelShaped]:
    with SpegelShaped() as running:
        yield running


def everywhere(tmp_path: Path, text: str, **changes: Any) -> RegistrySettings:
    """Make settings of a hosts.toml for all registries."""
    (tmp_path / "certs.d/_default").mkdir(parents=True)
    (tmp_path / "certs.d/_default/hosts.toml").write_text(text)
    conf = Path("/dev/null")
    return quick(mirrors=places.load({}, conf, tmp_path / "certs.d"), **changes)


async def pull(client: RegistryClient, repository: Repository, offset: int = 0) -> tuple[int, bytes]:
    """Ask for everything of an image once; return where its layer began, and the bytes."""
    digest = (await client.resolve(repository.with_tag("1"))).digest
    assert digest == BUILT.digest
    await client.fetch_manifest(repository, digest)
    return await download(client, repository, BLOB, offset)


WHOLE = 0, BUILT.layers[0].blob


async def test_dragonfly_is_told_the_registry_and_gives_layers_of_peers(
    tmp_path: Path, dragonfly: DragonflyShaped, faulty: FaultyRegistry
) -> None:
    """By ns=, with the token that the registry demands; the second node costs the registry no layer."""
    faulty.push("a/b", "1", BUILT)
    faulty.faults.auth = "bearer"
    for node in ("one", "two"):
        settings = everywhere(tmp_path / node, f'[host."http://{dragonfly.host}"]')
        async with RegistryClient(settings) as client:
            assert await pull(client, faulty.repository("a/b")) == WHOLE
            assert client.traffic.received.get("upstream", 0) < 200  # a token
    assert {asked.path for asked in faulty.asked if "user-agent" in asked.headers} >= {"/token"}
    layers = [asked for asked in faulty.asked if asked.path.endswith(str(BLOB.digest))]
    assert [asked.status for asked in layers if asked.status != 401] == [200]


@pytest.mark.parametrize("forwards", [True, False])
async def test_dragonfly_gets_a_private_image_with_the_login_that_it_may_have(
    tmp_path: Path, dragonfly: DragonflyShaped, faulty: FaultyRegistry, forwards: bool
) -> None:
    faulty.push("a/b", "1", BUILT)
    faulty.faults.auth, faulty.faults.anonymous = "bearer", False
    auth = basic(USER, PASSWORD).removeprefix("Basic ")
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {faulty.host: {"auth": auth}}}))
    settings = everywhere(
        tmp_path,
        f'[host."http://{dragonfly.host}"]',
        authfile=tmp_path / "auth.json",
        forward_credentials=frozenset({dragonfly.host} if forwards else ()),
    )
    async with RegistryClient(settings) as client:
        assert await pull(client, faulty.repository("a/b")) == WHOLE
    assert bool(dragonfly.kept) == forwards
    assert any("authorization" in asked.headers for asked in dragonfly.asked) == forwards
    assert auth not in repr(dragonfly.asked)  # the token goes through it, and never the password


async def test_an_older_dragonfly_is_told_by_a_header_and_podmans_way_names_no_registry(
    tmp_path: Path, dragonfly: DragonflyShaped, faulty: FaultyRegistry
) -> None:
    faulty.push("a/b", "1", BUILT)
    (tmp_path / "certs.d").mkdir()
    place = f'[[registry]]\nlocation = "{faulty.host}"\n[[registry.mirror]]\nlocation = "{dragonfly.host}"\n'
    for more, kept in (("", False), (f'namespace-proxy = "{faulty.host}"\n', True)):
        (tmp_path / "registries.conf").write_text(place + more)
        found = places.load({}, tmp_path / "registries.conf", tmp_path / "certs.d")
        async with RegistryClient(quick(mirrors=found)) as client:
            assert await pull(client, faulty.repository("a/b")) == WHOLE
        assert bool(dragonfly.kept) == kept
    dragonfly.kept.clear()
    text = f'[host."http://{dragonfly.host}"]\nheader = {{X-Dragonfly-Registry = "http://{faulty.host}"}}'
    async with RegistryClient(everywhere(tmp_path / "header", text)) as client:
        assert await pull(client, faulty.repository("a/b")) == WHOLE
    assert dragonfly.kept


async def test_spegel_gives_what_a_node_has_and_the_rest_comes_from_the_registry_at_once(
    tmp_path: Path, spegel: SpegelShaped, faulty: FaultyRegistry
) -> None:
    other = image(layer(file("b", b"other")))
    faulty.push("a/b", "1", BUILT)
    faulty.push("c/d", "1", other)
    spegel.has(f"{faulty.host}/a/b", "1", BUILT)
    settings = everywhere(tmp_path, f'[host."http://{spegel.host}"]\ndial_timeout = "2s"')
    async with RegistryClient(settings) as client:
        assert await pull(client, faulty.repository("a/b")) == WHOLE
        assert faulty.asked == []
        assert (await client.resolve(faulty.repository("c/d").with_tag("1"))).digest == other.digest
        await download(client, faulty.repository("c/d"), other.layers[0].descriptor())
    assert [asked.line.split()[-1] for asked in spegel.asked] == ["200", "200", "200", "404", "404"]
    assert not any("x-spegel-mirrored" in asked.headers for asked in spegel.asked)


@pytest.mark.parametrize("at_peer", [False, True])
async def test_a_range_that_spegel_cannot_have_of_a_peer_comes_from_the_registry(
    tmp_path: Path, spegel: SpegelShaped, faulty: FaultyRegistry, at_peer: bool
) -> None:
    faulty.push("a/b", "1", BUILT)
    spegel.has(f"{faulty.host}/a/b", "1", BUILT, at_peer=at_peer)
    async with RegistryClient(everywhere(tmp_path, f'[host."http://{spegel.host}"]')) as client:
        assert await pull(client, faulty.repository("a/b"), 7) == (7, BUILT.layers[0].blob[7:])
    assert [asked.status for asked in faulty.asked] == ([206] if at_peer else [])


@pytest.mark.parametrize("known", [True, False])
async def test_a_spegel_with_a_login_is_given_it_by_its_header_or_is_passed_over(
    tmp_path: Path, faulty: FaultyRegistry, known: bool
) -> None:
    faulty.push("a/b", "1", BUILT)
    login = basic("spegel", "planted")
    with SpegelShaped(login) as spegel:
        spegel.has(f"{faulty.host}/a/b", "1", BUILT)
        header = f'\nheader = {{Authorization = "{login}"}}' if known else ""
        async with RegistryClient(everywhere(tmp_path, f'[host."http://{spegel.host}"]{header}')) as client:
            assert await pull(client, faulty.repository("a/b")) == WHOLE
    assert (faulty.asked == []) == known
    assert "planted" not in repr(faulty.asked)
