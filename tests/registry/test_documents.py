"""Manifests, configs and tags from registries that do not behave."""

import gzip
import json

import pytest

from layerfs.errors import (
    Denied,
    DigestMismatch,
    NotFound,
    Offline,
    RateLimited,
    RegistryError,
    RegistryMisbehaved,
    RegistryTimeout,
    SizeMismatch,
    Unreachable,
    UnsupportedImage,
)
from layerfs.oci import Descriptor, Digest, Repository, parse_manifest
from layerfs.oci import mediatype as types
from layerfs.registry.client import RegistryClient
from tests.support.faulty_registry import Answer, FaultyRegistry, error_answer, schema1
from tests.support.images import file, image, layer
from tests.support.registry import free_port
from tests.support.registry_client import QUICK, quick

BUILT = image(layer(file("a", b"first")))
CONFIG = Descriptor(types.OCI_CONFIG, BUILT.config_digest, len(BUILT.config))


async def test_one_head_resolves_a_tag(faulty: FaultyRegistry) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    async with RegistryClient(quick()) as client:
        found = await client.resolve(repository.with_tag("1"))
    assert (found.digest, found.media_type, found.raw) == (BUILT.digest, types.OCI_MANIFEST, None)
    assert faulty.lines() == ["HEAD /v2/a/b/manifests/1 200"]
    accept = faulty.asked[0].headers["accept"].split(", ")
    assert accept == list(types.ACCEPT_MANIFESTS)
    assert faulty.asked[0].headers["accept-encoding"] == "identity"
    assert faulty.asked[0].headers["user-agent"].startswith("layerfs/")


async def test_one_get_resolves_a_tag_whose_document_is_wanted_as_well(faulty: FaultyRegistry) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    async with RegistryClient(quick()) as client:
        found = await client.resolve(repository.with_tag("1"), whole=True)
    assert (found.digest, found.media_type, found.raw) == (BUILT.digest, types.OCI_MANIFEST, BUILT.manifest)
    assert faulty.lines() == ["GET /v2/a/b/manifests/1 200"]


@pytest.mark.parametrize("status", [400, 403, 404, 405, 500, 501, 502, 503])
async def test_a_registry_that_knows_no_head_is_asked_by_get(faulty: FaultyRegistry, status: int) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    faulty.faults.always = [("HEAD /v2/a/b/manifests", Answer(status))]
    async with RegistryClient(quick()) as client:
        found = await client.resolve(repository.with_tag("1"))
    assert (found.digest, found.raw) == (BUILT.digest, BUILT.manifest)


@pytest.mark.parametrize("digest", ["", "sha256:short", "md5:d41d8cd98f00b204e9800998ecf8427e"])
async def test_a_registry_that_says_no_usable_digest_is_asked_by_get(
    faulty: FaultyRegistry, digest: str
) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    faulty.faults.no_digest = not digest
    faulty.faults.wrong_digest = digest
    async with RegistryClient(quick()) as client:
        found = await client.resolve(repository.with_tag("1"))
    assert (found.digest, found.raw) == (BUILT.digest, BUILT.manifest)
    assert len(faulty.asked) == 2


async def test_a_registry_that_contradicts_itself_is_refused(faulty: FaultyRegistry) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    faulty.faults.wrong_digest = str(Digest.of(b"other"))
    faulty.faults.always = [("HEAD", Answer(405))]
    async with RegistryClient(quick()) as client:
        with pytest.raises(DigestMismatch, match="as announced"):
            await client.resolve(repository.with_tag("1"))


async def test_the_announced_digest_is_not_believed_when_the_bytes_come(faulty: FaultyRegistry) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    faulty.faults.wrong_bytes = True
    async with RegistryClient(quick()) as client:
        with pytest.raises(DigestMismatch, match="expected sha256:"):
            await client.fetch_manifest(repository, BUILT.digest)
        with pytest.raises(SizeMismatch, match="expected 5"):
            await client.fetch_manifest(repository, BUILT.digest, 5)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        pytest.param(
            "Application/Vnd.Oci.Image.Manifest.v1+JSON; charset=utf-8", types.OCI_MANIFEST, id="params"
        ),
        pytest.param("text/plain", "text/plain", id="text"),
        pytest.param("", "", id="none"),
    ],
)
async def test_whatever_type_is_announced_a_manifest_is_read(
    faulty: FaultyRegistry, content_type: str, expected: str
) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    faulty.faults.content_type = content_type
    async with RegistryClient(quick()) as client:
        raw, media_type = await client.fetch_manifest(repository, BUILT.digest)
    assert media_type == expected
    assert parse_manifest(raw, BUILT.digest, media_type).media_type == types.OCI_MANIFEST


@pytest.mark.parametrize("content_type", [None, "text/plain", ""])
async def test_schema_1_is_refused_with_advice(faulty: FaultyRegistry, content_type: str | None) -> None:
    digest = faulty.push_raw("old", "1", *schema1("old"))
    faulty.faults.content_type = content_type
    async with RegistryClient(quick()) as client:
        raw, media_type = await client.fetch_manifest(faulty.repository("old"), digest)
    with pytest.raises(UnsupportedImage, match="push the image again"):
        parse_manifest(raw, digest, media_type)


async def test_a_document_longer_than_the_limit_is_not_read_to_its_end(faulty: FaultyRegistry) -> None:
    digest = faulty.push_raw("big", "1", b" " * (5 << 20), types.OCI_MANIFEST)
    blob = faulty.push_blob(b" " * (5 << 20))
    async with RegistryClient(quick()) as client:
        with pytest.raises(RegistryMisbehaved, match="more than 4194304 bytes"):
            await client.fetch_manifest(faulty.repository("big"), digest)
        with pytest.raises(SizeMismatch, match="at most 4194304"):
            await client.fetch_config(faulty.repository("big"), Descriptor("", blob, 5 << 20))
        with pytest.raises(RegistryMisbehaved, match="more than 4194304 bytes"):
            await client.fetch_config(faulty.repository("big"), Descriptor("", blob, 5))


async def test_a_small_body_that_inflates_beyond_the_limit_is_refused(faulty: FaultyRegistry) -> None:
    bomb = gzip.compress(bytes(50 << 20))
    faulty.faults.always = [("manifests", Answer(200, bomb, {"Content-Encoding": "gzip"}))]
    async with RegistryClient(quick()) as client:
        with pytest.raises(RegistryMisbehaved, match="more than 4194304 bytes"):
            await client.fetch_manifest(faulty.repository("bomb"), BUILT.digest)


async def test_a_document_compressed_on_its_way_is_hashed_as_it_was(faulty: FaultyRegistry) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    faulty.faults.gzip_bodies = True
    async with RegistryClient(quick()) as client:
        assert (await client.fetch_manifest(repository, BUILT.digest))[0] == BUILT.manifest
        assert await client.fetch_config(repository, CONFIG) == BUILT.config


async def test_a_document_that_breaks_off_is_asked_for_again(faulty: FaultyRegistry) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    faulty.faults.cut_blobs = [0, 7]
    async with RegistryClient(quick()) as client:
        assert await client.fetch_config(repository, CONFIG) == BUILT.config
    assert len(faulty.asked) == 3


async def test_a_document_that_never_ends_is_a_timeout(faulty: FaultyRegistry) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    faulty.faults.stall_blobs = [3] * QUICK.attempts
    async with RegistryClient(quick(document_timeout=0.3)) as client:
        # First connect, so that the time goes into the body.
        await client.resolve(repository.with_tag("1"))
        with pytest.raises(RegistryTimeout, match="not complete after"):
            await client.fetch_config(repository, CONFIG)


async def test_an_error_whose_text_never_ends_is_an_error_without_text(faulty: FaultyRegistry) -> None:
    faulty.faults.always = [("/v2/", Answer(404, b'{"errors": []}', cut=3, stall=True))]
    async with RegistryClient(quick(document_timeout=0.4)) as client:
        with pytest.raises(NotFound, match=r"status 404; check name"):
            await client.fetch_config(faulty.repository("a/b"), CONFIG)


async def test_an_error_whose_text_is_too_long_is_an_error_without_text(faulty: FaultyRegistry) -> None:
    faulty.faults.always = [("/v2/", Answer(404, b" " * (2 << 20)))]
    async with RegistryClient(quick()) as client:
        with pytest.raises(NotFound, match=r"status 404; check name"):
            await client.fetch_config(faulty.repository("a/b"), CONFIG)


@pytest.mark.parametrize(
    ("encoding", "body", "text"),
    [
        ("gzip", b"no gzip", "unreadable compressed body"),
        ("gzip", gzip.compress(b"x" * 1000, mtime=0)[:-9], "ends early"),
        ("br", b"x", "Content-Encoding 'br'"),
        ("gzip, gzip", b"x", "Content-Encoding 'gzip, gzip'"),
    ],
)
async def test_a_body_that_does_not_inflate_is_refused(
    faulty: FaultyRegistry, encoding: str, body: bytes, text: str
) -> None:
    faulty.faults.always = [("/v2/", Answer(200, body, {"Content-Encoding": encoding}))]
    async with RegistryClient(quick()) as client:
        with pytest.raises(RegistryMisbehaved, match=text):
            await client.fetch_config(faulty.repository("a/b"), CONFIG)


async def test_a_config_inside_its_descriptor_costs_no_request(faulty: FaultyRegistry) -> None:
    inline = Descriptor(types.OCI_CONFIG, BUILT.config_digest, len(BUILT.config), data=BUILT.config)
    async with RegistryClient(quick(offline=True)) as client:
        assert await client.fetch_config(faulty.repository("a"), inline) == BUILT.config
    assert not faulty.asked


@pytest.mark.allow_warnings
async def test_wrong_bytes_inside_a_descriptor_are_fetched_instead(faulty: FaultyRegistry) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    inline = Descriptor(types.OCI_CONFIG, BUILT.config_digest, len(BUILT.config), data=b"{}")
    async with RegistryClient(quick()) as client:
        assert await client.fetch_config(repository, inline) == BUILT.config
    assert len(faulty.asked) == 1


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        pytest.param(
            error_answer(404, "MANIFEST_UNKNOWN", "no"), NotFound, "check name and tag", id="unknown"
        ),
        pytest.param(Answer(404, b"<html>"), NotFound, "status 404", id="404 in html"),
        pytest.param(error_answer(400, "NAME_INVALID", "no"), NotFound, "NAME_INVALID", id="bad name"),
        pytest.param(error_answer(400, "UNKNOWN", "repo X not found"), NotFound, "not found", id="Harbor"),
        pytest.param(error_answer(403, "DENIED", "blocked"), Denied, "blocked.*layerfs login", id="denied"),
        pytest.param(Answer(451), Denied, "451", id="legal reasons"),
        pytest.param(
            error_answer(429, "TOOMANYREQUESTS", "slow"), RateLimited, "wait, or log in", id="limited"
        ),
        pytest.param(error_answer(403, "TOOMANYREQUESTS", "slow"), RateLimited, "slow", id="limited by 403"),
        pytest.param(Answer(503), Unreachable, "not in service.*try again later", id="down"),
        pytest.param(Answer(500, b"\xff"), RegistryMisbehaved, "status 500", id="broken"),
        pytest.param(Answer(200 + 4), RegistryMisbehaved, "status 204", id="no content"),
        pytest.param(Answer(418, b'{"errors":[{"code":7}]}'), RegistryMisbehaved, "status 418", id="teapot"),
    ],
)
async def test_every_refusal_has_its_error_and_says_what_to_do(
    faulty: FaultyRegistry, answer: Answer, error: type[RegistryError], text: str
) -> None:
    faulty.faults.always = [("/v2/", answer)]
    async with RegistryClient(quick()) as client:
        with pytest.raises(error, match=text) as resolved:
            await client.resolve(faulty.repository("a/b").with_tag("1"))
        with pytest.raises(error):
            await client.fetch_config(faulty.repository("a/b"), CONFIG)
        with pytest.raises(error):
            async with client.stream_blob(faulty.repository("a/b"), CONFIG):
                pass
    assert f"{faulty.host}/a/b:1" in str(resolved.value)


async def test_a_registry_that_is_not_there_is_unreachable() -> None:
    repository = Repository.of(f"127.0.0.1:{free_port()}", "a/b")
    async with RegistryClient(quick()) as client:
        with pytest.raises(Unreachable, match=r"no connection to http://127.0.0.1:.*check name, port"):
            await client.resolve(repository.with_tag("1"))


async def test_offline_names_what_is_missing_and_asks_nobody(faulty: FaultyRegistry) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    async with RegistryClient(quick(offline=True)) as client:
        with pytest.raises(Offline, match=r"a/b:1: not in the store, and offline; run without"):
            await client.resolve(repository.with_tag("1"))
        with pytest.raises(Offline, match=str(BUILT.digest)):
            await client.fetch_manifest(repository, BUILT.digest)
        with pytest.raises(Offline, match="config"):
            await client.fetch_config(repository, CONFIG)
        with pytest.raises(Offline, match="tags"):
            await client.tags(repository)
        with pytest.raises(Offline, match="blob"):
            async with client.stream_blob(repository, CONFIG):
                pass
    assert not faulty.asked


@pytest.mark.allow_warnings
async def test_a_warning_of_the_registry_is_shown_once(
    faulty: FaultyRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    repository = faulty.push("a/b", "1", BUILT)
    faulty.faults.warning = '299 - "soon, \\"very\\" soon: gone"\n299 - "another"'
    async with RegistryClient(quick()) as client:
        for _ in range(3):
            await client.resolve(repository.with_tag("1"))
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text.partition(" warns: ")[2] for text in warned] == ['soon, \\"very\\" soon: gone', "another"]


# Tags


async def test_all_pages_of_tags_are_read(faulty: FaultyRegistry) -> None:
    for number in range(7):
        faulty.push("many", f"t{number}", BUILT)
    faulty.faults.page_size = 3
    async with RegistryClient(quick()) as client:
        assert await client.tags(faulty.repository("many")) == [f"t{number}" for number in range(7)]
        with pytest.raises(NotFound):
            await client.tags(faulty.repository("none"))
    assert len(faulty.asked) == 4


async def test_the_next_page_is_asked_at_the_registry_whatever_its_link_says(faulty: FaultyRegistry) -> None:
    faulty.push("many", "1", BUILT)
    faulty.push("many", "2", BUILT)
    faulty.faults.page_size = 1
    faulty.faults.link_host = f"http://{faulty.storage.host}"
    async with RegistryClient(quick()) as client:
        assert await client.tags(faulty.repository("many")) == ["1", "2"]
    assert not faulty.storage.asked


async def test_pages_that_never_end_are_left(faulty: FaultyRegistry) -> None:
    page = Answer(200, json.dumps({"tags": ["1"]}).encode(), {"Link": '</v2/a/tags/list?last=1>; rel="next"'})
    faulty.faults.always = [("tags", page)]
    async with RegistryClient(quick()) as client:
        assert await client.tags(faulty.repository("a")) == ["1"]
    assert len(faulty.asked) == 2


@pytest.mark.parametrize("body", [b"", b"[]", b'{"tags": 7}', b"\xff", b"[" * 100_000])
async def test_a_list_of_tags_that_is_none_is_refused(faulty: FaultyRegistry, body: bytes) -> None:
    faulty.faults.always = [("tags", Answer(200, body))]
    async with RegistryClient(quick()) as client:
        with pytest.raises(RegistryMisbehaved, match="not a list of tags"):
            await client.tags(faulty.repository("a"))


@pytest.mark.parametrize("body", [b"{}", b'{"name":"a","tags":null}', b'{"tags":["../x"]}'])
async def test_a_repository_may_have_no_tags(faulty: FaultyRegistry, body: bytes) -> None:
    faulty.faults.always = [("tags", Answer(200, body))]
    async with RegistryClient(quick()) as client:
        assert await client.tags(faulty.repository("a")) == []
