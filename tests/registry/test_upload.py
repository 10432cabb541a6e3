"""Uploads to registries that answer in odd ways: where bytes and rights go, what is tried again."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from layerfs.errors import Denied, DigestMismatch, RegistryMisbehaved, StoreDamaged, Unreachable
from layerfs.oci import Digest
from layerfs.registry.attempts import NoAnswer, Outcome, Sender
from layerfs.registry.body import Body
from layerfs.registry.client import RegistryClient
from tests.support.certificates import authority, issue
from tests.support.faulty_registry import PASSWORD, USER, Answer, FaultyRegistry, basic
from tests.support.proxy import Proxy
from tests.support.registry_client import quick

CONTENT = os.urandom(600_000)
DIGEST = Digest.of(CONTENT)
UPLOADS = "/v2/a/b/blobs/uploads/"


@contextmanager
def body(tmp_path: Path, content: bytes = CONTENT) -> Iterator[Body]:
    (tmp_path / "blob").write_bytes(content)
    with (tmp_path / "blob").open("rb") as file:
        yield Body.of_file(file.fileno(), len(content), DIGEST)


def takes(registry: FaultyRegistry, location: str = f"{UPLOADS}1?state=x") -> None:
    """Let *registry* begin each upload, and take what is sent to it."""
    registry.faults.always += [
        (f"POST {UPLOADS}", Answer(202, headers={"Location": location})),
        ("PUT /v2/a/b/", Answer(201)),
    ]


def sent(registry: FaultyRegistry) -> list[str]:
    return [asked.method for asked in registry.asked]


async def test_a_blob_is_sent_whole_with_its_digest(faulty: FaultyRegistry, tmp_path: Path) -> None:
    takes(faulty)
    with body(tmp_path) as blob:
        async with RegistryClient(quick()) as client:
            assert await client.push_blob(faulty.repository("a/b"), DIGEST, blob) == "uploaded"
    assert sent(faulty) == ["HEAD", "POST", "PUT"]
    put = faulty.asked[-1]
    assert put.body == CONTENT
    assert put.query == {"state": ["x"], "digest": [str(DIGEST)]}
    assert put.headers["content-length"] == str(len(CONTENT))
    assert "transfer-encoding" not in put.headers


async def test_a_location_on_another_host_gets_the_bytes_and_no_login(
    faulty: FaultyRegistry, tmp_path: Path
) -> None:
    with FaultyRegistry() as elsewhere:
        faulty.faults.auth, faulty.faults.anonymous = "basic", False
        begun = Answer(202, headers={"Location": f"http://{elsewhere.host}/v2/a/b/x"})
        refused = Answer(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
        faulty.faults.first.append((f"POST {UPLOADS}", refused))
        faulty.faults.always.append((f"POST {UPLOADS}", begun))
        elsewhere.faults.always.append(("PUT /v2/a/b/x", Answer(201)))
        login = {"auth": basic(USER, PASSWORD).partition(" ")[2]}
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {faulty.host: login}}))
        (tmp_path / "auth.json").chmod(0o600)
        settings = quick(authfile=tmp_path / "auth.json")
        with body(tmp_path) as blob:
            async with RegistryClient(settings) as client:
                await client.push_blob(faulty.repository("a/b"), DIGEST, blob)
        (put,) = elsewhere.asked
    assert put.body == CONTENT
    assert "authorization" not in put.headers
    assert faulty.asked[-1].headers["authorization"] == basic(USER, PASSWORD)


async def test_nothing_goes_without_tls_where_the_registry_has_it(
    tmp_path: Path, faulty: FaultyRegistry
) -> None:
    by = authority(tmp_path)
    (tmp_path / "certs/registry.test").mkdir(parents=True)
    (tmp_path / "certs/registry.test/ca.crt").write_bytes(by.certificate.read_bytes())
    with FaultyRegistry(issue(tmp_path, by, "registry.test").server_context()) as secure:
        takes(secure, f"http://{faulty.host}/v2/a/b/x")
        with Proxy({"registry.test:443": secure.main.port}) as proxy, body(tmp_path) as blob:
            settings = quick(environment={"HTTPS_PROXY": proxy.url}, certs_dirs=(tmp_path / "certs",))
            async with RegistryClient(settings) as client:
                repository = secure.repository("a/b").of("registry.test", "a/b")
                with pytest.raises(RegistryMisbehaved, match="without TLS"):
                    await client.push_blob(repository, DIGEST, blob)
    assert faulty.asked == []


@pytest.mark.parametrize("location", ["", "http://user:word@127.0.0.1/x", "ftp://127.0.0.1/x", "http://["])
async def test_a_location_that_leads_nowhere_is_refused(
    faulty: FaultyRegistry, tmp_path: Path, location: str
) -> None:
    takes(faulty, location)
    with body(tmp_path) as blob:
        async with RegistryClient(quick()) as client:
            with pytest.raises(RegistryMisbehaved) as error:
                await client.push_blob(faulty.repository("a/b"), DIGEST, blob)
    assert "word" not in str(error.value)
    assert "PUT" not in sent(faulty)


@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_a_broken_upload_begins_anew(faulty: FaultyRegistry, tmp_path: Path, status: int) -> None:
    takes(faulty)
    faulty.faults.first.append((f"PUT {UPLOADS}1", Answer(status)))
    with body(tmp_path) as blob:
        async with RegistryClient(quick()) as client:
            await client.push_blob(faulty.repository("a/b"), DIGEST, blob)
    assert sent(faulty) == ["HEAD", "POST", "PUT", "POST", "PUT"]
    assert faulty.asked[-1].body == CONTENT


async def test_an_upload_that_always_breaks_is_given_up(faulty: FaultyRegistry, tmp_path: Path) -> None:
    faulty.faults.always.append((f"PUT {UPLOADS}1", Answer(503)))
    takes(faulty)
    with body(tmp_path) as blob:
        async with RegistryClient(quick()) as client:
            with pytest.raises(Unreachable, match="3 attempts"):
                await client.push_blob(faulty.repository("a/b"), DIGEST, blob)
    assert sent(faulty).count("PUT") == 3


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, Denied),
        (403, Denied),
        (400, RegistryMisbehaved),
        (302, RegistryMisbehaved),
        (413, RegistryMisbehaved),
    ],
)
async def test_a_refusal_is_not_tried_again(
    faulty: FaultyRegistry, tmp_path: Path, status: int, error: type[Exception]
) -> None:
    answer = Answer(status, headers={"Location": f"http://{faulty.host}/other"})
    faulty.faults.always.append((f"PUT {UPLOADS}1", answer))
    takes(faulty)
    with body(tmp_path) as blob:
        async with RegistryClient(quick()) as client:
            with pytest.raises(error):
                await client.push_blob(faulty.repository("a/b"), DIGEST, blob)
    assert sent(faulty) == ["HEAD", "POST", "PUT"]


async def test_rights_that_end_while_an_upload_runs_are_asked_for_again(
    faulty: FaultyRegistry, tmp_path: Path
) -> None:
    faulty.faults.auth = "bearer"
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{faulty.host}/token",service="s"'}
    faulty.faults.first += [
        (f"POST {UPLOADS}", Answer(401, headers=challenge)),
        (f"PUT {UPLOADS}1", Answer(401, headers=challenge)),
    ]
    takes(faulty)
    with body(tmp_path) as blob:
        async with RegistryClient(quick()) as client:
            assert await client.push_blob(faulty.repository("a/b"), DIGEST, blob) == "uploaded"
    assert [asked.body for asked in faulty.asked if asked.method == "PUT"] == [CONTENT, CONTENT]
    assert faulty.asked[-1].headers["authorization"].startswith("Bearer ")


async def test_time_that_sending_takes_is_no_reason_to_give_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sender = Sender(quick(), None)  # type: ignore[arg-type]  # it sends nothing
    broken = [Unreachable("broken"), Unreachable("broken")]

    async def attempt() -> Outcome:
        await trio.sleep(3600)
        if broken:
            return NoAnswer(broken.pop(), trio.current_time())
        raise StoreDamaged("the third attempt")

    with pytest.raises(StoreDamaged, match="third"):
        await sender.persist(attempt)


async def test_a_redirect_is_followed_with_all_bytes(faulty: FaultyRegistry, tmp_path: Path) -> None:
    moved = Answer(307, headers={"Location": f"{UPLOADS}2"})
    faulty.faults.always.append((f"PUT {UPLOADS}1", moved))
    takes(faulty)
    with body(tmp_path) as blob:
        async with RegistryClient(quick()) as client:
            await client.push_blob(faulty.repository("a/b"), DIGEST, blob)
    assert [asked.path for asked in faulty.asked[-2:]] == [f"{UPLOADS}1", f"{UPLOADS}2"]
    assert faulty.asked[-1].body == CONTENT


@pytest.mark.parametrize("status", [403, 404, 405])
async def test_a_mount_that_is_refused_becomes_an_upload(
    faulty: FaultyRegistry, tmp_path: Path, status: int
) -> None:
    faulty.faults.first.append((f"POST {UPLOADS}", Answer(status)))
    takes(faulty)
    with body(tmp_path) as blob:
        async with RegistryClient(quick()) as client:
            source = faulty.repository("c/d")
            assert await client.push_blob(faulty.repository("a/b"), DIGEST, blob, source) == "uploaded"
    queries = [asked.query for asked in faulty.asked if asked.method == "POST"]
    assert queries == [{"mount": [str(DIGEST)], "from": ["c/d"]}, {}]


async def test_a_mount_that_is_answered_by_an_upload_is_that(faulty: FaultyRegistry, tmp_path: Path) -> None:
    takes(faulty)
    with body(tmp_path) as blob:
        async with RegistryClient(quick()) as client:
            await client.push_blob(faulty.repository("a/b"), DIGEST, blob, faulty.repository("c/d"))
    assert sent(faulty) == ["HEAD", "POST", "PUT"]


async def test_wrong_bytes_never_go_to_their_end(faulty: FaultyRegistry, tmp_path: Path) -> None:
    takes(faulty)
    with body(tmp_path, bytes(len(CONTENT))) as blob:
        async with RegistryClient(quick()) as client:
            with pytest.raises(StoreDamaged, match="other bytes"):
                await client.push_blob(faulty.repository("a/b"), DIGEST, blob)
    assert all(len(asked.body) < len(CONTENT) for asked in faulty.asked)


async def test_a_manifest_that_is_taken_for_another_is_an_error(faulty: FaultyRegistry) -> None:
    other = Digest.of(b"other")
    answer = Answer(201, headers={"Docker-Content-Digest": str(other)})
    faulty.faults.always.append(("PUT /v2/a/b/manifests/1", answer))
    manifest = Body.of(b"{}", "application/vnd.oci.image.manifest.v1+json")
    async with RegistryClient(quick()) as client:
        with pytest.raises(DigestMismatch, match=f"{faulty.host}/a/b:1"):
            await client.push_manifest(faulty.repository("a/b"), "1", Digest.of(b"{}"), manifest)
    assert faulty.asked[-1].headers["content-type"] == manifest.media_type
