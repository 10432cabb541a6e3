"""What a store answers, over HTTP: the pull half of the distribution specification."""

import json
from pathlib import Path

import pytest
import trio

from layerfs.errors import Denied, LayerfsError, NotFound, RateLimited, StoreError, Unreachable
from layerfs.needs import BlobNeed, DocumentNeed, Need, TagNeed
from layerfs.oci import Digest, Repository
from layerfs.store import ImageStorage
from tests.serve.scene import IMAGE, LARGE, NAME, SECRET, SMALL, Scene, parsed, request, served
from tests.support.images import file, image, index, layer
from tests.support.serving import fill, put_blob

OTHER = image(layer(file("etc/other", b"1")))


def codes(body: bytes) -> list[str]:
    return [error["code"] for error in json.loads(body)["errors"]]


async def test_an_image_is_served_as_it_was_fetched(store: Path) -> None:
    async with served(store) as scene:
        by_tag = await scene.ask("/v2/team/app/manifests/1")
        by_digest = await scene.ask(f"/v2/team/app/manifests/{IMAGE.digest}")
        config = await scene.ask(f"/v2/team/app/blobs/{IMAGE.config_digest}")
        small = await scene.ask(f"/v2/team/app/blobs/{SMALL.digest}")
        large = await scene.ask(f"/v2/team/app/blobs/{LARGE.digest}")

    assert by_tag.body == by_digest.body == IMAGE.manifest
    assert by_tag.headers["content-type"] == IMAGE.media_type
    assert by_tag.headers["docker-content-digest"] == str(IMAGE.digest)
    assert (config.body, small.body, large.body) == (IMAGE.config, SMALL.blob, LARGE.blob)
    assert small.headers["docker-content-digest"] == str(SMALL.digest)
    assert small.headers["content-type"] == "application/octet-stream"


async def test_head_says_what_get_would_send(store: Path) -> None:
    async with served(store) as scene:
        for target in (f"blobs/{LARGE.digest}", "manifests/1", f"blobs/{IMAGE.config_digest}"):
            said = await scene.ask(f"/v2/team/app/{target}", method="HEAD")
            sent = await scene.ask(f"/v2/team/app/{target}")

            assert said.body == b""
            assert said.headers["content-length"] == str(len(sent.body))
            assert said.headers["etag"] == sent.headers["etag"]


async def test_a_part_of_a_blob_is_sent(store: Path) -> None:
    async with served(store) as scene:
        answer = await scene.ask(f"/v2/team/app/blobs/{LARGE.digest}", "Range: bytes=1000000-1999999")
        behind = await scene.ask(f"/v2/team/app/blobs/{LARGE.digest}", "Range: bytes=99000000-")
        known = await scene.ask(f"/v2/team/app/blobs/{LARGE.digest}", f'If-None-Match: "{LARGE.digest}"')

    assert (answer.status, answer.body) == (206, LARGE.blob[1_000_000:2_000_000])
    assert (behind.status, codes(behind.body)) == (416, ["RANGE_INVALID"])
    assert (known.status, known.body) == (304, b"")


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("team/app/manifests/2", 404, "MANIFEST_UNKNOWN"),
        (f"team/app/manifests/{OTHER.digest}", 404, "MANIFEST_UNKNOWN"),
        (f"team/app/blobs/{OTHER.digest}", 404, "BLOB_UNKNOWN"),
        ("nobody/app/manifests/1", 404, "NAME_UNKNOWN"),
        ("nobody/app/tags/list", 404, "NAME_UNKNOWN"),
        ("_catalog", 404, "UNSUPPORTED"),
    ],
)
async def test_what_is_not_here_is_an_error_of_the_specification(
    store: Path, target: str, status: int, code: str
) -> None:
    async with served(store) as scene:
        answer = await scene.ask(f"/v2/{target}")

    assert (answer.status, codes(answer.body)) == (status, [code])
    assert answer.headers["content-type"] == "application/json"


async def test_tags_are_those_that_are_pinned_here_in_pages(store: Path) -> None:
    async with served(store) as scene:
        repository = Repository.parse(NAME)
        for tag in ("b", "c", "d"):
            scene.storage.refs.write(repository.with_tag(tag), IMAGE.digest)
        every = await scene.ask("/v2/team/app/tags/list")
        first = await scene.ask("/v2/team/app/tags/list?n=3")
        link = first.headers["link"].partition(">")[0].removeprefix("<")
        second = await scene.ask(link)
        none = await scene.ask("/v2/team/app/tags/list?n=0")

    assert json.loads(every.body) == {"name": "team/app", "tags": ["1", "b", "c", "d"]}
    assert json.loads(first.body)["tags"] == ["1", "b", "c"]
    assert json.loads(second.body)["tags"] == ["d"]
    assert "link" not in every.headers | second.headers | none.headers
    assert json.loads(none.body)["tags"] == []


async def test_nothing_refers_to_a_manifest(store: Path) -> None:
    async with served(store) as scene:
        answer = await scene.ask(f"/v2/team/app/referrers/{IMAGE.digest}")

    assert json.loads(answer.body)["manifests"] == []
    assert answer.headers["content-type"] == "application/vnd.oci.image.index.v1+json"


async def test_a_layer_without_its_compressed_bytes_is_an_error_that_says_so(store: Path) -> None:
    async with served(store) as scene:
        storage = scene.storage
        path = storage.open_blob(SMALL.digest)
        assert path is not None
        await trio.to_thread.run_sync(storage.extract_layer, SMALL.digest, path.path)
        storage.discard_blob(SMALL.digest)
        answer = await scene.ask(f"/v2/team/app/blobs/{SMALL.digest}")
    storage.close()

    assert (answer.status, codes(answer.body)) == (404, ["BLOB_UNKNOWN"])
    assert b"only as the directory that was extracted" in answer.body


@pytest.mark.allow_warnings
async def test_damaged_documents_are_not_served(store: Path) -> None:
    async with served(store) as scene:
        for directory in ("manifests", "configs"):
            for path in (store / directory).iterdir():
                path.write_bytes(path.read_bytes().replace(b"20", b"21"))
        manifest = await scene.ask(f"/v2/team/app/manifests/{IMAGE.digest}")
        config = await scene.ask(f"/v2/team/app/blobs/{IMAGE.config_digest}")

    assert (manifest.status, config.status) == (404, 404)


async def test_a_name_that_no_file_can_have_is_not_here(store: Path) -> None:
    async with served(store) as scene:
        for target in ("manifests/" + "t" * 128, f"manifests/{OTHER.digest}", "tags/list"):
            answer = await scene.ask(f"/v2/r.test/{'a' * 248}/{target}")

            assert answer.status == 404


@pytest.mark.allow_warnings
async def test_a_disk_that_cannot_be_read_is_no_miss(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(store) as scene:

        def fails(digest: Digest) -> None:
            raise StoreError(f"{digest}: Input/output error at /secret/place")

        monkeypatch.setattr(scene.storage, "open_blob", fails)
        answer = await scene.ask(f"/v2/team/app/blobs/{SMALL.digest}")

    assert (answer.status, codes(answer.body)) == (503, ["UNAVAILABLE"])
    assert b"secret" not in answer.body


# Names


async def test_a_name_means_a_repository_with_its_registry_or_the_only_one_of_its_path(store: Path) -> None:
    async with served(store) as scene:
        fill(scene.storage, "other.test/team/app", "1", OTHER)
        fill(scene.storage, "docker.io/library/alpine", "3", OTHER)
        ambiguous = await scene.ask("/v2/team/app/manifests/1")
        by_ns = await scene.ask("/v2/team/app/manifests/1?ns=registry.test")
        by_path = await scene.ask("/v2/other.test/team/app/manifests/1")
        wrong = await scene.ask("/v2/team/app/manifests/1?ns=third.test")
        hub = await scene.ask("/v2/alpine/manifests/3")

    assert (ambiguous.status, codes(ambiguous.body)) == (404, ["NAME_UNKNOWN"])
    assert b"2 registries have it here" in ambiguous.body
    assert (by_ns.body, by_path.body, hub.body) == (IMAGE.manifest, OTHER.manifest, OTHER.manifest)
    assert wrong.status == 404


async def test_of_other_repositories_than_the_allowed_nothing_is_served(store: Path) -> None:
    async with served(store, "registry.test/team/*") as scene:
        allowed = [
            await scene.ask("/v2/team/app/manifests/1"),
            await scene.ask(f"/v2/team/app/manifests/{IMAGE.digest}?ns=registry.test"),
            await scene.ask(f"/v2/team/app/blobs/{IMAGE.config_digest}"),
            await scene.ask(f"/v2/team/app/blobs/{SMALL.digest}"),
        ]
        secret = SECRET.layers[0].digest
        refused = [
            await scene.ask("/v2/private/app/manifests/1"),
            await scene.ask("/v2/private/app/tags/list?ns=registry.test"),
            await scene.ask(f"/v2/private/app/blobs/{secret}"),
            # The name of one that is served opens no other.
            await scene.ask(f"/v2/team/app/manifests/{SECRET.digest}"),
            await scene.ask(f"/v2/team/app/blobs/{secret}"),
            await scene.ask(f"/v2/team/app/blobs/{SECRET.config_digest}"),
        ]

    assert [answer.status for answer in allowed] == [200] * 4
    assert [answer.status for answer in refused] == [404] * 6
    assert {tuple(codes(answer.body)) for answer in refused} == {("NAME_UNKNOWN",)}


async def test_what_an_index_leads_to_belongs_to_its_repository(store: Path) -> None:
    async with served(store, "registry.test/team/*") as scene:
        fill(scene.storage, "registry.test/team/many", "1", index(OTHER))
        manifest = await scene.ask(f"/v2/team/many/manifests/{OTHER.digest}")
        blob = await scene.ask(f"/v2/team/many/blobs/{OTHER.layers[0].digest}")

    assert (manifest.body, blob.body) == (OTHER.manifest, OTHER.layers[0].blob)


# Fetching


class Upstream:
    """Has `OTHER` as tag 2 of the repository; a real provider is in tests/serve/test_processes.py."""

    def __init__(self, storage: ImageStorage, error: LayerfsError | None = None) -> None:
        self.storage = storage
        self.error = error
        self.needs: list[Need] = []

    async def obtain(self, need: Need) -> None:
        self.needs.append(need)
        if self.error:
            raise self.error
        match need:
            case TagNeed(tag):
                self.storage.save_manifest(OTHER.manifest, OTHER.digest)
                self.storage.refs.write(tag, OTHER.digest)
            case DocumentNeed(_, digest):
                if digest != OTHER.digest:
                    raise NotFound(f"{digest}: not there")
                self.storage.save_manifest(OTHER.manifest, OTHER.digest)
                self.storage.save_config(OTHER.config, OTHER.config_digest)
            case BlobNeed(_, descriptor):
                put_blob(self.storage, descriptor.digest, OTHER.layers[0].blob)


async def pull(scene: Scene, target: str) -> list[int]:
    answers = [
        await scene.ask(f"/v2/team/app/manifests/{target}?ns=registry.test"),
        await scene.ask(f"/v2/team/app/blobs/{OTHER.config_digest}?ns=registry.test"),
        await scene.ask(f"/v2/team/app/blobs/{OTHER.layers[0].digest}?ns=registry.test"),
    ]
    return [answer.status for answer in answers]


@pytest.mark.parametrize("target", ["2", str(OTHER.digest)])
async def test_what_is_missing_is_fetched_where_that_is_allowed(store: Path, target: str) -> None:
    upstreams: list[Upstream] = []

    def provider(storage: ImageStorage) -> Upstream:
        upstreams.append(Upstream(storage))
        return upstreams[0]

    async with served(store, "registry.test/team/*", provider=provider) as scene:
        assert await pull(scene, target) == [200, 200, 200]
        asked = len(upstreams[0].needs)
        assert await pull(scene, target) == [200, 200, 200]
        assert len(upstreams[0].needs) == asked
        elsewhere = [
            await scene.ask("/v2/private/app/manifests/2?ns=registry.test"),
            await scene.ask("/v2/team/app/manifests/2?ns=evil.test"),
            await scene.ask(f"/v2/team/app/manifests/{SECRET.digest}?ns=registry.test"),
            await scene.ask(f"/v2/team/app/blobs/{Digest.of(b'unknown')}?ns=registry.test"),
        ]

    assert [answer.status for answer in elsewhere] == [404] * 4
    assert len(upstreams[0].needs) == asked


async def test_nothing_is_fetched_for_a_stranger_unless_that_was_said(store: Path) -> None:
    async with served(store, "registry.test/team/*") as scene:
        assert await pull(scene, "2") == [404, 404, 404]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("not there"), 404),
        (Denied("tried as admin with s3cret"), 404),
        (RateLimited("slow down"), 429),
        (Unreachable("no route to internal.test"), 502),
    ],
)
async def test_a_stranger_is_not_told_what_a_registry_said(
    store: Path, error: LayerfsError, status: int
) -> None:
    async with served(store, "registry.test/*", provider=lambda storage: Upstream(storage, error)) as scene:
        answer = await scene.ask("/v2/team/app/manifests/2?ns=registry.test")

    assert answer.status == status
    assert str(error).encode() not in answer.body


# Connections


async def test_a_connection_carries_many_requests_also_at_once(store: Path) -> None:
    async with served(store) as scene:
        asked = [request(f"/v2/team/app/blobs/{SMALL.digest}"), request("/v2/", method="HEAD")] * 20
        raw = await scene.say(b"".join([*asked, request("/v2/", "Connection: close")]))

    assert raw.count(b"HTTP/1.1 200 OK") == 41
    assert raw.count(SMALL.blob) == 20
    assert parsed(raw).body.startswith(SMALL.blob)


async def test_what_is_being_sent_is_leased(store: Path) -> None:
    async with served(store) as scene, await scene.connect() as stream:
        await stream.send_all(request(f"/v2/team/app/blobs/{LARGE.digest}"))
        await stream.receive_some(1)
        leases = scene.storage.leases.holding()
        scene.storage.discard_blob(LARGE.digest)  # of all removers only a hand does that now
        received = 1
        while received < LARGE.size:
            received += len(await stream.receive_some())

    [(name, lease)] = leases
    assert name.startswith("serve-")
    assert lease.needed() == {LARGE.digest}


async def test_a_lease_ends_with_what_was_sent(store: Path) -> None:
    async with served(store) as scene:
        await scene.ask(f"/v2/team/app/blobs/{LARGE.digest}")

        assert scene.storage.leases.holding() == []


async def test_the_end_lets_what_is_being_sent_arrive_and_closes_what_waits(store: Path) -> None:
    async with served(store) as scene, await scene.connect() as busy, await scene.connect() as idle:
        await idle.send_all(request("/v2/"))
        await idle.receive_some(1)
        await busy.send_all(request(f"/v2/team/app/blobs/{LARGE.digest}"))
        received = len(await busy.receive_some(1))
        scene.ended.set()
        with trio.fail_after(30):
            while await idle.receive_some():
                pass
            while chunk := await busy.receive_some():
                received += len(chunk)
        with pytest.raises(OSError, match=r"connect|refused"):
            await scene.connect()

    assert received > LARGE.size
