"""Authentication: challenges, tokens, logins, and what happens when they end."""

import base64
import json
from pathlib import Path

import pytest
import trio

from layerfs.errors import Denied, RegistryMisbehaved, Unreachable
from layerfs.oci import Descriptor, Repository
from layerfs.registry import RegistrySettings
from layerfs.registry.client import RegistryClient
from tests.support.faulty_registry import (
    IDENTITY_TOKEN,
    PASSWORD,
    USER,
    Answer,
    FaultyRegistry,
    basic,
)
from tests.support.images import file, image, layer
from tests.support.registry_client import download, quick

BUILT = image(layer(file("a", b"first")), layer(file("b", b"second")))
BLOBS = [built.descriptor() for built in BUILT.layers]


@pytest.fixture
def repository(faulty: FaultyRegistry) -> Repository:
    faulty.faults.auth = "bearer"
    return faulty.push("a/b", "1", BUILT)


def login(tmp_path: Path, host: str, user: str = USER, password: str = PASSWORD) -> RegistrySettings:
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    return written(tmp_path, {"auths": {host: {"auth": auth}}})


def written(tmp_path: Path, document: object) -> RegistrySettings:
    path = tmp_path / "auth.json"
    path.write_text(json.dumps(document))
    return quick(authfile=path)


def tokens_asked(faulty: FaultyRegistry) -> int:
    return sum(asked.path == "/token" for asked in faulty.asked)


# Tokens


async def test_an_image_costs_one_token_and_one_refused_request(
    faulty: FaultyRegistry, repository: Repository
) -> None:
    async with RegistryClient(quick()) as client:
        found = await client.resolve(repository.with_tag("1"))
        await client.fetch_manifest(repository, found.digest)
        async with trio.open_nursery() as nursery:
            for blob in BLOBS:
                nursery.start_soon(download, client, repository, blob)
    assert sorted(faulty.lines()) == sorted(
        [
            "HEAD /v2/a/b/manifests/1 401",
            "GET /token 200",
            "HEAD /v2/a/b/manifests/1 200",
            f"GET /v2/a/b/manifests/{BUILT.digest} 200",
            *(f"GET /v2/a/b/blobs/{blob.digest} 200" for blob in BLOBS),
        ]
    )
    (asked,) = [asked for asked in faulty.asked if asked.path == "/token"]
    assert asked.query == {"service": ["s,1"], "scope": ["repository:a/b:pull"]}
    assert "authorization" not in asked.headers


async def test_another_repository_is_asked_with_a_token_at_once(
    faulty: FaultyRegistry, repository: Repository
) -> None:
    other = faulty.push("c", "1", BUILT)
    async with RegistryClient(quick()) as client:
        await client.resolve(repository.with_tag("1"))
        await client.resolve(other.with_tag("1"))
    assert faulty.lines()[-2:] == ["GET /token 200", "HEAD /v2/c/manifests/1 200"]


async def test_many_at_once_ask_for_one_token(faulty: FaultyRegistry, repository: Repository) -> None:
    async with RegistryClient(quick()) as client, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(client.resolve, repository.with_tag("1"))
    assert tokens_asked(faulty) == 1


async def test_one_that_gives_up_does_not_take_the_token_from_the_others(
    faulty: FaultyRegistry, repository: Repository
) -> None:
    faulty.faults.first = [("/token", Answer(503, headers={"Retry-After": "1"}))]
    found = []

    async def resolve(client: RegistryClient) -> None:
        found.append(await client.resolve(repository.with_tag("1")))

    async with RegistryClient(quick()) as client, trio.open_nursery() as nursery:
        with trio.move_on_after(0.2):
            await resolve(client)  # leads, and is cancelled while it waits
        for _ in range(3):
            nursery.start_soon(resolve, client)
    assert len(found) == 3
    assert tokens_asked(faulty) == 2


async def test_many_at_once_share_one_refusal_and_the_next_asks_again(
    faulty: FaultyRegistry, repository: Repository
) -> None:
    faulty.faults.token_answer = Answer(403)
    refusals = list[str]()

    async def refused(client: RegistryClient) -> None:
        with pytest.raises(Denied) as caught:
            await client.resolve(repository.with_tag("1"))
        refusals.append(str(caught.value))

    async with RegistryClient(quick()) as client:
        await refused(client)  # from now on the token is asked for first
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(refused, client)
        assert (len(refusals), len(set(refusals)), tokens_asked(faulty)) == (11, 1, 2)
        faulty.faults.token_answer = None
        await client.resolve(repository.with_tag("1"))


async def test_grants_that_have_ended_are_let_go(
    monkeypatch: pytest.MonkeyPatch, faulty: FaultyRegistry
) -> None:
    monkeypatch.setattr("layerfs.registry.auth._MOST_GRANTS", 3)
    faulty.faults.auth = "bearer"
    repositories = [faulty.push(f"r{number}", "1", BUILT) for number in range(6)]
    async with RegistryClient(quick()) as client:
        for _ in range(2):
            for each in repositories:
                await client.resolve(each.with_tag("1"))
    assert tokens_asked(faulty) == 6  # none has ended, so none is let go


@pytest.mark.parametrize("key", ["token", "access_token"])
async def test_a_token_may_have_either_name(faulty: FaultyRegistry, repository: Repository, key: str) -> None:
    faulty.faults.token_key = key
    faulty.faults.token_life = None
    async with RegistryClient(quick()) as client:
        await client.resolve(repository.with_tag("1"))
    assert tokens_asked(faulty) == 1


async def test_a_token_is_renewed_before_it_ends(
    faulty: FaultyRegistry, repository: Repository, autojump_clock: trio.testing.MockClock
) -> None:
    # The clock jumps while all tasks wait for the server's thread, so timeouts must not end.
    forever = {"connect_timeout": None, "idle_timeout": None, "document_timeout": float("inf")}
    faulty.faults.token_life = 1000
    async with RegistryClient(quick(**forever)) as client:
        for seconds, tokens in [(0, 1), (690, 1), (170, 2), (690, 2), (2000, 3)]:
            await trio.sleep(seconds)
            await client.resolve(repository.with_tag("1"))
            assert tokens_asked(faulty) == tokens
    assert not [line for line in faulty.lines()[1:] if line.endswith("401")]


async def test_an_old_token_is_used_while_the_token_server_is_away(
    faulty: FaultyRegistry, repository: Repository, autojump_clock: trio.testing.MockClock
) -> None:
    forever = {"connect_timeout": None, "idle_timeout": None, "document_timeout": float("inf")}
    faulty.faults.token_life = 1000
    async with RegistryClient(quick(**forever)) as client:
        await client.resolve(repository.with_tag("1"))
        await trio.sleep(900)
        faulty.faults.token_answer = Answer(503)
        await client.resolve(repository.with_tag("1"))
        await trio.sleep(200)
        with pytest.raises(Unreachable, match="token for"):
            await client.resolve(repository.with_tag("1"))


async def test_a_token_that_is_refused_in_mid_session_is_replaced_once(
    faulty: FaultyRegistry, repository: Repository
) -> None:
    async with RegistryClient(quick()) as client:
        await client.resolve(repository.with_tag("1"))
        faulty.tokens.clear()
        async with trio.open_nursery() as nursery:
            for blob in BLOBS * 3:
                nursery.start_soon(download, client, repository, blob)
    assert tokens_asked(faulty) == 2


async def test_a_registry_that_never_takes_its_own_tokens_denies(
    faulty: FaultyRegistry, repository: Repository
) -> None:
    faulty.faults.token_answer = Answer(200, b'{"token":"worthless"}')
    async with RegistryClient(quick()) as client:
        with pytest.raises(Denied, match="layerfs login"):
            await client.resolve(repository.with_tag("1"))
    assert tokens_asked(faulty) == 1


async def test_a_wish_for_more_scope_is_granted_once(faulty: FaultyRegistry, repository: Repository) -> None:
    faulty.faults.needed_scope = "repository:a/b:pull,metadata_read"
    async with RegistryClient(quick()) as client:
        await client.resolve(repository.with_tag("1"))
        await client.fetch_manifest(repository, BUILT.digest)
    assert tokens_asked(faulty) == 2
    faulty.faults.needed_scope = "never"
    faulty.faults.token_answer = Answer(200, b'{"token":"worthless"}')
    async with RegistryClient(quick()) as client:
        with pytest.raises(Denied):
            await client.resolve(repository.with_tag("1"))


@pytest.mark.parametrize(
    "challenge",
    [
        pytest.param('Basic realm="x", Bearer realm="{realm}",service="s"', id="basic first"),
        pytest.param('Negotiate abc==, bEaReR realm="{realm}"', id="another first, no service"),
        pytest.param("Bearer realm={realm},service=s", id="no quotes"),
        pytest.param('Bearer realm="/token",service="s"', id="relative realm"),
        pytest.param('Bearer service="s" realm="{realm}?x=1#y"', id="no comma, realm with a query"),
        pytest.param('Digest nonce="a, b"\nBearer realm="{realm}"', id="two headers"),
    ],
)
async def test_challenges_in_many_shapes_are_understood(
    faulty: FaultyRegistry, repository: Repository, challenge: str
) -> None:
    faulty.faults.challenge = challenge
    async with RegistryClient(quick()) as client:
        await client.resolve(repository.with_tag("1"))


async def test_a_401_that_asks_for_nothing_is_explained_by_a_ping(
    faulty: FaultyRegistry, repository: Repository
) -> None:
    faulty.faults.silent_challenge = True
    async with RegistryClient(quick()) as client:
        await client.resolve(repository.with_tag("1"))
        await client.fetch_manifest(repository, BUILT.digest)
    assert [line for line in faulty.lines() if line.startswith("GET /v2/ ")] == ["GET /v2/ 401"]


@pytest.mark.parametrize("challenge", ['Negotiate realm="x"', "Bearer", "", ",,,=", 'Bearer service="s"'])
async def test_a_challenge_without_a_way_in_is_denied(
    faulty: FaultyRegistry, repository: Repository, challenge: str
) -> None:
    faulty.faults.challenge = challenge or " "
    async with RegistryClient(quick()) as client:
        with pytest.raises(Denied, match=r"no way known here.*expected Bearer or Basic"):
            await client.resolve(repository.with_tag("1"))


@pytest.mark.parametrize("realm", ["ftp://127.0.0.1/token", "http://[", "http://a:99999/"])
async def test_a_realm_that_is_no_url_is_refused(
    faulty: FaultyRegistry, repository: Repository, realm: str
) -> None:
    faulty.faults.realm = realm
    async with RegistryClient(quick()) as client:
        with pytest.raises(RegistryMisbehaved, match="not an http"):
            await client.resolve(repository.with_tag("1"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"token":""}',
        b'{"token":"a b"}',
        b'{"token":"a\\r\\nX: y"}',
        b'{"token":7}',
        b"\xff",
    ],
)
async def test_an_answer_without_a_usable_token_is_refused(
    faulty: FaultyRegistry, repository: Repository, body: bytes
) -> None:
    faulty.faults.token_answer = Answer(200, body)
    async with RegistryClient(quick()) as client:
        with pytest.raises(RegistryMisbehaved, match="its answer"):
            await client.resolve(repository.with_tag("1"))


async def test_a_token_longer_than_the_limit_is_not_read_to_its_end(
    faulty: FaultyRegistry, repository: Repository
) -> None:
    faulty.faults.token_answer = Answer(200, b'{"token":"' + b"a" * (2 << 20))
    async with RegistryClient(quick()) as client:
        with pytest.raises(RegistryMisbehaved, match="more than 1048576 bytes"):
            await client.resolve(repository.with_tag("1"))


async def test_a_token_server_in_trouble_is_asked_again(
    faulty: FaultyRegistry, repository: Repository
) -> None:
    faulty.faults.first = [("/token", Answer(502)), ("/token", Answer(429))]
    async with RegistryClient(quick()) as client:
        await client.resolve(repository.with_tag("1"))
    assert tokens_asked(faulty) == 3


# Logins


async def test_user_and_password_go_to_the_token_server_alone(
    faulty: FaultyRegistry, repository: Repository, tmp_path: Path
) -> None:
    faulty.faults.anonymous = False
    async with RegistryClient(login(tmp_path, faulty.host)) as client:
        await client.resolve(repository.with_tag("1"))
    for asked in faulty.asked:
        assert (asked.headers.get("authorization") == basic(USER, PASSWORD)) == (asked.path == "/token")
    (asked,) = [asked for asked in faulty.asked if asked.path == "/token"]
    assert asked.query["account"] == [USER]


async def test_basic_authentication_is_sent_with_every_request_after_the_first(
    faulty: FaultyRegistry, repository: Repository, tmp_path: Path
) -> None:
    faulty.faults.auth = "basic"
    async with RegistryClient(login(tmp_path, faulty.host)) as client:
        await client.resolve(repository.with_tag("1"))
        for blob in BLOBS:
            await download(client, repository, blob)
    assert [asked.status for asked in faulty.asked] == [401, 200, 200, 200]


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_a_wrong_password_is_denied_and_says_whose_it_was(
    faulty: FaultyRegistry, repository: Repository, tmp_path: Path, auth: str
) -> None:
    faulty.faults.auth = "basic" if auth == "basic" else "bearer"
    async with RegistryClient(login(tmp_path, faulty.host, password="planted-wrong")) as client:
        with pytest.raises(Denied, match=f"user '{USER}' of {tmp_path}/auth.json; .*layerfs login") as caught:
            await client.resolve(repository.with_tag("1"))
    assert "planted" not in str(caught.value)
    assert len(faulty.asked) == 2


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_without_a_login_a_private_image_is_denied(
    faulty: FaultyRegistry, repository: Repository, auth: str
) -> None:
    faulty.faults.auth = "basic" if auth == "basic" else "bearer"
    faulty.faults.anonymous = False
    async with RegistryClient(quick()) as client:
        with pytest.raises(Denied, match=rf"no credentials; .*layerfs login {faulty.host}$"):
            await client.resolve(repository.with_tag("1"))


async def test_an_identity_token_is_posted_and_traded(
    faulty: FaultyRegistry, repository: Repository, tmp_path: Path
) -> None:
    settings = written(tmp_path, {"auths": {faulty.host: {"identitytoken": IDENTITY_TOKEN}}})
    async with RegistryClient(settings) as client:
        await client.resolve(repository.with_tag("1"))
    (asked,) = [asked for asked in faulty.asked if asked.path == "/token"]
    assert asked.method == "POST"
    assert asked.form == {
        "grant_type": ["refresh_token"],
        "service": ["s,1"],
        "client_id": ["layerfs"],
        "scope": ["repository:a/b:pull"],
        "refresh_token": [IDENTITY_TOKEN],
    }
    assert not asked.query


async def test_an_identity_token_is_not_sent_to_where_the_token_server_redirects(
    faulty: FaultyRegistry, repository: Repository, tmp_path: Path
) -> None:
    faulty.faults.token_answer = Answer(307, headers={"Location": f"http://{faulty.storage.host}/token"})
    settings = written(tmp_path, {"auths": {faulty.host: {"identitytoken": IDENTITY_TOKEN}}})
    async with RegistryClient(settings) as client:
        with pytest.raises(RegistryMisbehaved, match="a form with a token"):
            await client.resolve(repository.with_tag("1"))
    assert not faulty.storage.asked


async def test_a_password_is_not_sent_to_where_the_token_server_redirects(
    faulty: FaultyRegistry, repository: Repository, tmp_path: Path
) -> None:
    faulty.faults.token_answer = Answer(307, headers={"Location": f"http://{faulty.storage.host}/token"})
    async with RegistryClient(login(tmp_path, faulty.host)) as client:
        with pytest.raises(Denied):
            await client.resolve(repository.with_tag("1"))
    (stored,) = faulty.storage.asked
    assert "authorization" not in stored.headers


async def test_a_registry_token_is_sent_as_it_is(
    faulty: FaultyRegistry, repository: Repository, tmp_path: Path
) -> None:
    faulty.tokens["ready"] = set()
    settings = written(tmp_path, {"auths": {faulty.host: {"registrytoken": "ready"}}})
    async with RegistryClient(settings) as client:
        await client.resolve(repository.with_tag("1"))
    assert tokens_asked(faulty) == 0


async def test_a_login_made_meanwhile_counts_at_once(
    faulty: FaultyRegistry, repository: Repository, tmp_path: Path
) -> None:
    faulty.faults.anonymous = False
    async with RegistryClient(written(tmp_path, {})) as client:
        with pytest.raises(Denied):
            await client.resolve(repository.with_tag("1"))
        login(tmp_path, faulty.host)
        await client.resolve(repository.with_tag("1"))


async def test_credentials_can_be_switched_off(
    faulty: FaultyRegistry, repository: Repository, tmp_path: Path
) -> None:
    login(tmp_path, faulty.host)
    settings = quick(authfile=tmp_path / "auth.json", use_credentials=False)
    async with RegistryClient(settings) as client:
        await client.resolve(repository.with_tag("1"))
    assert all("authorization" not in asked.headers for asked in faulty.asked if asked.path == "/token")


async def test_a_blob_is_refused_where_its_repository_is(
    faulty: FaultyRegistry, repository: Repository
) -> None:
    faulty.faults.anonymous = False
    async with RegistryClient(quick()) as client:
        with pytest.raises(Denied):
            await download(client, repository, Descriptor("", BLOBS[0].digest, BLOBS[0].size))
