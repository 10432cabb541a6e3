"""The happy paths, against Debian's docker-registry: its log counts the requests."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from layerfs.errors import Denied, DigestMismatch, NotFound, RegistryError, SizeMismatch
from layerfs.fetch.backoff import Backoff
from layerfs.oci import Descriptor, Digest, Image, ImageConfig, Index, Manifest, Platform, parse_manifest
from layerfs.registry import RegistrySettings
from layerfs.registry.client import RegistryClient
from tests.support.certificates import authority, issue
from tests.support.images import file, image, index, layer
from tests.support.registry import Registry
from tests.support.registry_client import download, quick
from tests.support.token_server import TokenServer

BUILT = image(layer(file("a", b"first" * 5000)), layer(file("b", b"second")))


async def test_a_cold_image_costs_one_head_and_one_get_each(registry: Registry) -> None:
    reference = registry.push("cold/image", "1", index(BUILT, style="oci"))
    mark = registry.mark()
    repository = reference.repository
    async with RegistryClient() as client:
        resolved = await client.resolve(repository.with_tag("1"))
        raw, media_type = await client.fetch_manifest(repository, resolved.digest)
        found = parse_manifest(raw, resolved.digest, media_type)
        assert isinstance(found, Index)
        entry = found.choose(Platform.of("linux", "amd64"))
        raw, media_type = await client.fetch_manifest(repository, entry.digest, entry.size)
        manifest = parse_manifest(raw, entry.digest, media_type)
        assert isinstance(manifest, Manifest)
        config = ImageConfig.parse(await client.fetch_config(repository, manifest.config))
        for number, wanted in enumerate(Image.of(manifest, config).layers):
            async with client.stream_blob(repository, wanted.descriptor) as stream:
                assert stream.offset == 0
                content = b"".join([chunk async for chunk in stream])
            assert content == BUILT.layers[number].blob
    asked = [(request.method, request.status) for request in registry.requests(mark)]
    assert asked == [("HEAD", 200)] + [("GET", 200)] * 5


async def test_a_download_goes_on_where_it_is_told_to(registry: Registry) -> None:
    repository = registry.push("resumed", "1", BUILT).repository
    wanted = BUILT.layers[0].descriptor()
    async with RegistryClient() as client, client.stream_blob(repository, wanted, offset=100) as stream:
        assert stream.offset == 100
        assert b"".join([chunk async for chunk in stream]) == BUILT.layers[0].blob[100:]


async def test_a_download_may_be_left_in_the_middle(registry: Registry) -> None:
    big = image(layer(file("big", bytes(9_000_000)), compression="none"))
    repository = registry.push("left", "1", big).repository
    wanted = big.layers[0].descriptor()
    async with RegistryClient(RegistrySettings(downloads_per_site=1)) as client:
        for _ in range(3):
            async with client.stream_blob(repository, wanted) as stream:
                assert await anext(stream)


async def test_what_the_registry_does_not_have_is_not_found(registry: Registry) -> None:
    repository = registry.push("missing", "1", BUILT).repository
    absent = Digest.of(b"nowhere")
    async with RegistryClient() as client:
        with pytest.raises(NotFound, match=r"missing:2.*MANIFEST_UNKNOWN.*check name and tag"):
            await client.resolve(repository.with_tag("2"))
        with pytest.raises(NotFound, match="nobody/knows:1"):
            await client.resolve(registry.repository("nobody/knows").with_tag("1"))
        with pytest.raises(NotFound):
            await client.fetch_manifest(repository, absent)
        with pytest.raises(NotFound):
            await client.fetch_config(repository, Descriptor("", absent, 7))
        with pytest.raises(NotFound):
            async with client.stream_blob(repository, Descriptor("", absent, 7)):
                pass


async def test_a_damaged_config_is_refused(own_registry: Registry) -> None:
    reference = own_registry.push("damaged", "1", BUILT)
    own_registry.corrupt(BUILT.config_digest)
    config = Descriptor("", BUILT.config_digest, len(BUILT.config))
    async with RegistryClient() as client:
        with pytest.raises(SizeMismatch, match="expected 3"):
            await client.fetch_manifest(reference.repository, BUILT.digest, 3)
        with pytest.raises(DigestMismatch, match="expected sha256:"):
            await client.fetch_config(reference.repository, config)


@contextmanager
def restarted(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> Iterator[None]:
    """Run a filled registry again with other settings."""
    registry.stop()
    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        registry.start()
    yield
    registry.stop()
    registry.start()


def logged_in(tmp_path: Path, host: str, password: str) -> RegistrySettings:
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {host: {"username": "robot", "password": password}}}))
    return quick(authfile=path)


async def test_htpasswd_and_tls(
    own_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = own_registry.push("private/a", "1", BUILT).repository
    server = issue(tmp_path, authority(tmp_path), "127.0.0.1")
    users = tmp_path / "htpasswd"
    made = await trio.run_process(["htpasswd", "-Bbn", "robot", "p:ss wörd"], capture_stdout=True)
    users.write_bytes(made.stdout or b"")
    environment = {
        "REGISTRY_HTTP_TLS_CERTIFICATE": str(server.certificate),
        "REGISTRY_HTTP_TLS_KEY": str(server.key),
        "REGISTRY_AUTH": "htpasswd",
        "REGISTRY_AUTH_HTPASSWD_REALM": "tests",
        "REGISTRY_AUTH_HTPASSWD_PATH": str(users),
    }
    async with RegistryClient(logged_in(tmp_path, own_registry.host, "p:ss wörd")) as client:
        await client.resolve(repository.with_tag("1"))
        with restarted(own_registry, monkeypatch, environment):  # TLS and passwords come and go again
            await client.resolve(repository.with_tag("1"))
        await client.resolve(repository.with_tag("1"))
    with restarted(own_registry, monkeypatch, environment):
        async with RegistryClient(logged_in(tmp_path, own_registry.host, "p:ss wörd")) as client:
            await client.check_login(own_registry.host)
            assert (await client.resolve(repository.with_tag("1"))).digest == BUILT.digest
            assert await client.tags(repository) == ["1"]
            assert (await download(client, repository, BUILT.layers[0].descriptor()))[1] == BUILT.layers[
                0
            ].blob
        async with RegistryClient(quick()) as client:
            with pytest.raises(Denied, match="wants user and password"):
                await client.resolve(repository.with_tag("1"))
        async with RegistryClient(logged_in(tmp_path, own_registry.host, "wrong")) as client:
            with pytest.raises(Denied, match="user 'robot' of"):
                await client.resolve(repository.with_tag("1"))
            with pytest.raises(Denied, match=r"login to .*user 'robot' of"):
                await client.check_login(own_registry.host)


async def test_signed_tokens(own_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = own_registry.push("private/a", "1", BUILT).repository
    public = own_registry.push("public/a", "1", BUILT).repository
    with (
        TokenServer(authority(tmp_path), {"robot": "right"}) as server,
        restarted(own_registry, monkeypatch, server.environment),
    ):
        async with RegistryClient(quick()) as client:
            found = await client.resolve(public.with_tag("1"))
            await client.fetch_manifest(public, found.digest)
            await download(client, public, BUILT.layers[0].descriptor())
            assert server.asked == ["repository:public/a:pull"]
            with pytest.raises(Denied, match="no credentials"):
                await client.resolve(private.with_tag("1"))
        async with RegistryClient(logged_in(tmp_path, own_registry.host, "right")) as client:
            assert (await client.resolve(private.with_tag("1"))).digest == BUILT.digest
        async with RegistryClient(logged_in(tmp_path, own_registry.host, "wrong")) as client:
            with pytest.raises(Denied, match="gives none"):
                await client.resolve(private.with_tag("1"))


async def test_a_download_survives_the_registry_being_killed_several_times(own_registry: Registry) -> None:
    big = image(layer(file("big", os.urandom(24_000_000)), compression="none"))
    repository = own_registry.push("big", "1", big).repository
    wanted, expected = big.layers[0].descriptor(), big.layers[0].blob
    content, kills, backoff = bytearray(), 0, Backoff(base=0.01)
    async with RegistryClient(quick()) as client:
        while len(content) < len(expected):
            try:
                async with client.stream_blob(repository, wanted, len(content)) as stream:
                    assert stream.offset == len(content)
                    async for chunk in stream:
                        content += chunk
                        if kills < 3 and len(content) > (kills + 1) * 5_000_000:
                            kills += 1
                            own_registry.stop()
                            await trio.to_thread.run_sync(own_registry.start)
            except RegistryError:
                delay = backoff.failed(len(content))
                assert delay is not None
                await trio.sleep(delay)
    assert content == expected
    assert kills == 3
