"""Blobs: redirects, ranges, broken connections, encodings, places, foreign layers."""

import gzip
import threading

import pytest
import trio

from layerfs.errors import (
    NotFound,
    RegistryError,
    RegistryMisbehaved,
    RegistryTimeout,
    Unreachable,
)
from layerfs.fetch.backoff import Backoff
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.registry import RetryPolicy
from layerfs.registry.client import RegistryClient
from layerfs.registry.retry import STATUSES
from tests.support.faulty_registry import SIGNATURE, Answer, FaultyRegistry
from tests.support.registry_client import download, quick

CONTENT = bytes(range(256)) * 4000
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def put(faulty: FaultyRegistry, content: bytes = CONTENT, **more: object) -> tuple[Repository, Descriptor]:
    digest = faulty.push_blob(content)
    return faulty.repository("a/b"), Descriptor(str(more.get("type", "")), digest, len(content))


async def resumed(
    client: RegistryClient, repository: Repository, blob: Descriptor
) -> tuple[bytes, list[str]]:
    """Download as `layerfs.fetch` does: go on after every failure in the middle, while `Backoff` allows."""
    content, errors, backoff = bytearray(), list[str](), Backoff(base=0.001, progress=1)
    while True:
        async with client.stream_blob(repository, blob, len(content)) as stream:
            del content[stream.offset :]
            try:
                async for chunk in stream:
                    content += chunk
            except RegistryError as exc:
                errors.append(type(exc).__name__)
                delay = backoff.failed(len(content))
                if delay is None:
                    raise
                await trio.sleep(delay)
            else:
                return bytes(content), errors


async def test_a_blob_costs_one_request(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, blob) == (0, CONTENT)
    (asked,) = faulty.asked
    assert asked.headers["accept-encoding"] == "identity"
    assert "range" not in asked.headers


async def test_an_empty_blob_and_one_that_is_here_already_are_no_special_cases(
    faulty: FaultyRegistry,
) -> None:
    repository, blob = put(faulty, b"")
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, blob) == (0, b"")
        assert await download(client, repository, Descriptor("", blob.digest, 7), offset=7) == (7, b"")


# Ranges


async def test_a_broken_download_goes_on_and_fetches_no_byte_twice(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    faulty.faults.cut_blobs = [1000, 0, 500_000]
    async with RegistryClient(quick()) as client:
        content, errors = await resumed(client, repository, blob)
    assert content == CONTENT
    assert errors == ["Unreachable"] * 3
    ranges = [asked.headers.get("range") for asked in faulty.asked]
    assert ranges == [None, *["bytes=1000-1023999"] * 2, "bytes=501000-1023999"]


async def test_a_part_of_a_blob_is_asked_for_and_no_more(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    async with RegistryClient(quick()) as client:
        async with client.stream_blob(repository, blob, 1000, 1500) as stream:
            assert b"".join([chunk async for chunk in stream]) == CONTENT[1000:1500]
        async with client.stream_blob(repository, blob, 1000, 1 << 40) as stream:
            assert b"".join([chunk async for chunk in stream]) == CONTENT[1000:]
        async with client.stream_blob(repository, blob, 1000, 1000) as stream:
            assert [chunk async for chunk in stream] == []
        faulty.faults.short_blobs = [10]
        with pytest.raises(RegistryMisbehaved, match=r"ended after 1010 bytes \(expected 1500\)"):
            async with client.stream_blob(repository, blob, 1000, 1500) as stream:
                [chunk async for chunk in stream]
    ranges = [asked.headers.get("range") for asked in faulty.asked]
    assert ranges == ["bytes=1000-1499", "bytes=1000-1023999", "bytes=1000-1499"]


@pytest.mark.parametrize("way", ["range", "beside"])
@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
async def test_ranges_that_were_read_to_their_last_byte_share_a_connection(
    faulty: FaultyRegistry, way: str, chunked: bool
) -> None:
    repository, blob = put(faulty)
    faulty.faults.chunked = chunked
    async with RegistryClient(quick()) as client:
        await client.fetch_config(repository, blob)
        for start in range(0, 50_000, 10_000):
            stream_of = client.stream_blob if way == "range" else client.stream_range
            async with stream_of(repository, blob, start, start + 10_000) as stream:
                assert stream is not None
                found = b""
                async for chunk in stream:  # as a caller who knows how many bytes there are
                    found += chunk
                    if len(found) == 10_000:
                        break
            assert found == CONTENT[start : start + 10_000]
    assert faulty.main.accepted == 1


@pytest.mark.parametrize("read", [0, 1], ids=["nothing read", "a part read"])
async def test_a_range_that_was_not_read_to_its_end_takes_its_connection_with_it(
    faulty: FaultyRegistry, read: int
) -> None:
    repository, blob = put(faulty)
    async with RegistryClient(quick()) as client:
        for _ in range(2):
            async with client.stream_blob(repository, blob, 1000, len(CONTENT)) as stream:
                for _ in range(read):
                    await anext(stream)
    assert faulty.main.accepted == 2


async def test_the_end_of_a_range_is_not_waited_for_if_it_does_not_come(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    content_range = {"Content-Range": f"bytes 0-999/{len(CONTENT)}"}
    faulty.faults.always = [("/blobs/", Answer(206, CONTENT[:1000], content_range, chunked=True, stall=True))]
    async with RegistryClient(quick(idle_timeout=60)) as client:
        with trio.fail_after(30):
            async with client.stream_blob(repository, blob, 0, 1000) as stream:
                assert await anext(stream) == CONTENT[:1000]


async def test_a_body_that_ends_early_is_no_success(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    faulty.faults.short_blobs = [1000, 10]
    async with RegistryClient(quick()) as client:
        with pytest.raises(RegistryMisbehaved, match=r"ended after 1000 bytes \(expected 1024000\)"):
            await download(client, repository, blob)
        with pytest.raises(RegistryMisbehaved, match="ended after 510 bytes"):
            await download(client, repository, blob, offset=500)


async def test_a_silent_server_ends_the_wait_and_the_download_goes_on(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    faulty.faults.stall_blobs = [5000]
    async with RegistryClient(quick(idle_timeout=0.5)) as client:
        content, errors = await resumed(client, repository, blob)
    assert content == CONTENT
    assert set(errors) == {"RegistryTimeout"}  # more than one if this machine was busy


async def test_a_server_that_accepts_and_says_nothing_is_a_timeout(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    faulty.faults.silent = True
    async with RegistryClient(quick(idle_timeout=0.1, retry=RetryPolicy(attempts=1))) as client:
        with pytest.raises(RegistryTimeout, match="sends nothing any more"):
            await download(client, repository, blob)


async def test_a_server_without_ranges_starts_again_at_zero(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    faulty.faults.ignore_range = True
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, blob, offset=1000) == (0, CONTENT)


@pytest.mark.parametrize("status", [400, 403, 405, 416, 500, 501])
async def test_resume_refused(faulty: FaultyRegistry, status: int) -> None:
    """Whatever a range is refused with, the whole may still be had."""
    repository, blob = put(faulty)
    faulty.faults.refuse_range = True
    faulty.faults.range_status = status
    async with RegistryClient(quick(retry=RetryPolicy(attempts=1))) as client:
        if status in STATUSES:  # may pass by itself
            with pytest.raises(RegistryMisbehaved):
                await download(client, repository, blob, offset=1000)
        else:
            assert await download(client, repository, blob, offset=1000) == (0, CONTENT)


@pytest.mark.parametrize("status", [404, 410])
async def test_a_blob_that_is_gone_is_not_asked_for_again(faulty: FaultyRegistry, status: int) -> None:
    repository, blob = put(faulty)
    faulty.faults.refuse_range = True
    faulty.faults.range_status = status
    async with RegistryClient(quick()) as client:
        with pytest.raises((NotFound, RegistryMisbehaved)):
            await download(client, repository, blob, offset=1000)
    assert len(faulty.asked) == 1


async def test_resume_short_206(faulty: FaultyRegistry) -> None:
    """A part may be shorter than what was asked for; the rest is asked for behind it."""
    repository, blob = put(faulty)
    faulty.faults.most_of_range = 300_000
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, blob, offset=1000) == (1000, CONTENT[1000:301_000])
        assert await download(client, repository, blob, offset=1_000_000) == (1_000_000, CONTENT[1_000_000:])


@pytest.mark.parametrize(
    "content_range",
    [
        pytest.param("bytes 0-1023999/1024000", id="from 0"),
        pytest.param("bytes 1000-1024000/1024000", id="beyond the end"),
        pytest.param("bytes 1000-999/1024000", id="backwards"),
        pytest.param("bytes 1000-1023999/9", id="another total"),
        pytest.param("bytes */1024000", id="none"),
        pytest.param("1000-1023999/1024000", id="no unit"),
        pytest.param("", id="empty, as of multipart/byteranges"),
    ],
)
async def test_a_range_that_was_not_asked_for_is_not_used(faulty: FaultyRegistry, content_range: str) -> None:
    repository, blob = put(faulty)
    faulty.faults.content_range = content_range or " "
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, blob, offset=1000) == (0, CONTENT)


async def test_a_total_may_be_unknown(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    faulty.faults.content_range = "bytes 1000-1023999/*"
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, blob, offset=1000) == (1000, CONTENT[1000:])


async def test_bytes_beyond_the_descriptor_reach_the_one_who_verifies(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, Descriptor("", blob.digest, 10)) == (0, CONTENT)


# Encodings


async def test_a_blob_compressed_on_its_way_arrives_as_it_was(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    faulty.faults.gzip_bodies = True
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, blob) == (0, CONTENT)
        assert await download(client, repository, blob, offset=3) == (0, CONTENT)


async def test_a_gzip_blob_labelled_as_encoded_is_left_alone(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    faulty.faults.encoding_label = "gzip"
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, blob) == (0, CONTENT)
        assert await download(client, repository, blob, offset=3) == (3, CONTENT[3:])


@pytest.mark.parametrize(
    ("content", "compression"),
    [
        pytest.param(gzip.compress(CONTENT), "+gzip", id="gzip"),
        pytest.param(CONTENT, "", id="plain"),
        pytest.param(b"\x28\xb5\x2f\xfd" + CONTENT, "+zstd", id="zstd"),
    ],
)
@pytest.mark.parametrize("truly", [False, True])
async def test_a_chunked_answer_may_lie_about_its_encoding(
    faulty: FaultyRegistry, content: bytes, compression: str, truly: bool
) -> None:
    """Without a Content-Length the bytes tell whether there is a Content-Encoding around the blob."""
    repository, blob = put(faulty, content, type=f"application/vnd.oci.image.layer.v1.tar{compression}")
    faulty.faults.chunked = True
    faulty.faults.gzip_bodies = truly
    faulty.faults.encoding_label = "gzip"
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, blob) == (0, content)


# Redirects


async def test_a_redirect_takes_the_range_along_and_no_secret(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    faulty.faults.auth = "bearer"
    faulty.faults.redirect_to_storage = True
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, blob, offset=1000) == (1000, CONTENT[1000:])
    (stored,) = faulty.storage.asked
    assert stored.query == {"X-Amz-Signature": [SIGNATURE]}
    assert stored.headers.keys() == {"host", "user-agent", "accept", "accept-encoding", "range"}


async def test_within_the_registry_a_redirect_keeps_the_token(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    faulty.faults.auth = "bearer"
    there = f"/v2/mirror/blobs/{blob.digest}"
    faulty.faults.redirect = lambda path: None if path == there else (302, there)
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, blob) == (0, CONTENT)
    assert faulty.asked[-1].headers["authorization"].startswith("Bearer ")


@pytest.mark.parametrize(
    ("location", "text"),
    [
        pytest.param("", "without Location", id="nowhere"),
        pytest.param("ftp://example.org/x", "not an http", id="other scheme"),
        pytest.param("file:///etc/passwd", "not an http", id="file"),
        pytest.param("http://[::1", "not an http", id="no URL"),
        pytest.param("http://a:99999/", "not an http", id="no port"),
        pytest.param("http://user:planted@127.0.0.1:1/x", "with a password", id="user and password"),
        pytest.param("/v2/a/b/blobs/again", "more than 10 redirects", id="circle"),
    ],
)
async def test_a_redirect_to_nowhere_is_refused(faulty: FaultyRegistry, location: str, text: str) -> None:
    repository, blob = put(faulty)
    faulty.faults.redirect = lambda _: (307, location)
    async with RegistryClient(quick()) as client:
        with pytest.raises(RegistryMisbehaved, match=text) as caught:
            await download(client, repository, blob)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_all_kinds_of_redirects_are_followed(faulty: FaultyRegistry, status: int) -> None:
    repository, blob = put(faulty)
    faulty.faults.redirect = lambda _: (status, f"//{faulty.storage.host}/data/{blob.digest}#fragment")
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, blob) == (0, CONTENT)


async def test_an_expired_presigned_url_is_renewed_by_asking_the_registry_again(
    faulty: FaultyRegistry,
) -> None:
    repository, blob = put(faulty)
    faulty.faults.redirect_to_storage = True
    faulty.faults.cut_blobs = [1000]
    async with RegistryClient(quick()) as client:
        content, _ = await resumed(client, repository, blob)
    assert content == CONTENT
    assert len(faulty.asked) == len(faulty.storage.asked) == 2


async def test_connections_are_used_again_whatever_was_answered(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    faulty.push_raw("a/b", "1", b"{}", "")
    faulty.faults.auth = "bearer"
    faulty.faults.redirect_to_storage = True
    async with RegistryClient(quick()) as client:
        for _ in range(3):
            await client.resolve(repository.with_tag("1"))
            assert await download(client, repository, blob) == (0, CONTENT)
            with pytest.raises(NotFound):
                await client.resolve(repository.with_tag("2"))
    assert faulty.main.accepted == faulty.storage.accepted == 1


# Retries


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 522, 524])
async def test_what_may_pass_is_asked_again(faulty: FaultyRegistry, status: int) -> None:
    repository, blob = put(faulty)
    faulty.faults.first = [("blobs", Answer(status)), ("blobs", Answer(status))]
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, blob) == (0, CONTENT)
    assert len(faulty.asked) == 3


@pytest.mark.parametrize("status", [400, 404, 410, 501])
async def test_what_does_not_pass_is_not_asked_again(faulty: FaultyRegistry, status: int) -> None:
    repository, blob = put(faulty)
    faulty.faults.always = [("blobs", Answer(status))]
    async with RegistryClient(quick()) as client:
        with pytest.raises((NotFound, RegistryMisbehaved)):
            await download(client, repository, blob)
    assert len(faulty.asked) == 1


async def test_a_reset_before_the_answer_is_asked_again(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    async with RegistryClient(quick()) as client:
        await download(client, repository, blob)
        faulty.main.drop_connections()  # the idle connection in the pool is dead now
        assert await download(client, repository, blob) == (0, CONTENT)


async def test_retry_after_is_waited_for_by_all_requests_to_the_registry(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    faulty.faults.first = [("blobs", Answer(429, headers={"Retry-After": "1"}))]
    async with RegistryClient(quick()) as client:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(download, client, repository, blob)
            while not faulty.asked:  # noqa: ASYNC110 - the server is in another thread
                await trio.sleep(0.01)
            await trio.sleep(0.05)
            nursery.start_soon(download, client, repository, blob)
        # No bound from above: only that nobody asked too early.
        assert trio.current_time() - began >= 1
    assert len(faulty.asked) == 3


async def test_a_longer_wish_than_we_wait_for_is_an_error_at_once(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    faulty.faults.always = [("blobs", Answer(503, headers={"Retry-After": "3600"}))]
    async with RegistryClient(quick()) as client:
        with pytest.raises(Unreachable, match="503"):
            await download(client, repository, blob)
    assert len(faulty.asked) == 1


# Places


async def test_downloads_are_limited_and_lookups_do_not_wait_for_them(faulty: FaultyRegistry) -> None:
    blobs = [put(faulty, bytes([number]) * 100) for number in range(8)]
    faulty.faults.hold_blobs = threading.Event()
    digest = faulty.push_raw("a/b", "1", b"{}", "")
    settings = quick(downloads_per_site=3, requests_per_site=1)
    async with RegistryClient(settings) as client, trio.open_nursery() as nursery:
        for repository, blob in blobs:
            nursery.start_soon(download, client, repository, blob)
        while faulty.downloads_at_once < 3:  # noqa: ASYNC110 - the server is in another thread
            await trio.sleep(0.01)
        assert (await client.resolve(faulty.repository("a/b").with_tag("1"))).digest == digest
        faulty.faults.hold_blobs.set()
    assert faulty.downloads_at_once == 3


async def test_a_cancelled_download_gives_its_place_back(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    faulty.faults.stall_blobs = [10, 0]
    async with RegistryClient(quick(downloads_per_site=1)) as client:
        for number in (1, 2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(download, client, repository, blob)
                while len(faulty.asked) < number:  # noqa: ASYNC110 - the server is in another thread
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        assert await download(client, repository, blob) == (0, CONTENT)


async def test_errors_give_their_places_back(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    async with RegistryClient(quick(downloads_per_site=1)) as client:
        for _ in range(3):
            with pytest.raises(NotFound):
                await download(client, repository, Descriptor("", Digest.of(b"none"), 4))
        assert await download(client, repository, blob) == (0, CONTENT)


# Foreign layers and inline data


async def test_a_foreign_layer_comes_from_its_urls_without_credentials(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty, type=FOREIGN)
    faulty.faults.auth = "bearer"
    urls = ("ftp://127.0.0.1/x", f"http://{faulty.storage.host}/data/{blob.digest}")
    async with RegistryClient(quick()) as client:
        foreign = Descriptor(FOREIGN, blob.digest, blob.size, urls)
        assert await download(client, repository, foreign, offset=10) == (10, CONTENT[10:])
    assert not faulty.asked
    (stored,) = faulty.storage.asked
    assert "authorization" not in stored.headers


async def test_a_foreign_layer_that_its_urls_lack_comes_from_the_registry(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    foreign = Descriptor(FOREIGN, blob.digest, blob.size, (f"http://{faulty.storage.host}/data/none",))
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, foreign) == (0, CONTENT)
    async with RegistryClient(quick(foreign_urls=False)) as client:
        assert await download(client, repository, foreign) == (0, CONTENT)
    assert len(faulty.storage.asked) == 1


async def test_urls_of_a_layer_that_is_not_foreign_are_not_asked(faulty: FaultyRegistry) -> None:
    repository, blob = put(faulty)
    plain = Descriptor("", blob.digest, blob.size, (f"http://{faulty.storage.host}/data/{blob.digest}",))
    async with RegistryClient(quick()) as client:
        assert await download(client, repository, plain) == (0, CONTENT)
    assert not faulty.storage.asked


async def test_a_blob_inside_its_descriptor_costs_no_request(faulty: FaultyRegistry) -> None:
    inline = Descriptor("", Digest.of(b"hello"), 5, data=b"hello")
    async with RegistryClient(quick(offline=True)) as client:
        assert await download(client, faulty.repository("a"), inline) == (0, b"hello")
        assert await download(client, faulty.repository("a"), inline, offset=2) == (2, b"llo")
    assert not faulty.asked
