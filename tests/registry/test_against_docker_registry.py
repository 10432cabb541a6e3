"""The happy paths, against Debian's docker-registry: its log counts the requests."""

import pytest

from layerfs.errors import DigestMismatch, NotFound, SizeMismatch
from layerfs.oci import Descriptor, Digest, Image, ImageConfig, Index, Manifest, Platform, parse_manifest
from layerfs.registry import RegistryClient, RegistrySettings
from tests.support.images import file, image, index, layer
from tests.support.registry import Registry

BUILT = image(layer(file("a", b"first" * 5000)), layer(file("b", b"second")))


async def test_a_cold_image_costs_one_head_and_one_get_each(registry: Registry) -> None:
    reference = registry.push("cold/image", "1", index(BUILT, style="oci"))
    mark = registry.mark()
    repository = reference.repository
    async with RegistryClient() as client:
        resolved = await client.resolve(repository, "1")
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
    async with RegistryClient(RegistrySettings(downloads_per_registry=1)) as client:
        for _ in range(3):
            async with client.stream_blob(repository, wanted) as stream:
                assert await anext(stream)


async def test_what_the_registry_does_not_have_is_not_found(registry: Registry) -> None:
    repository = registry.push("missing", "1", BUILT).repository
    absent = Digest.of(b"nowhere")
    async with RegistryClient() as client:
        with pytest.raises(NotFound, match=r"missing:2.*MANIFEST_UNKNOWN.*check name and tag"):
            await client.resolve(repository, "2")
        with pytest.raises(NotFound, match="nobody/knows:1"):
            await client.resolve(registry.repository("nobody/knows"), "1")
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
