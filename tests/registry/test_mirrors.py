"""Several servers for one registry: who is asked when, what each may see, what is said if none has it."""

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layerfs.errors import Denied, DigestMismatch, NotFound, Unreachable
from layerfs.oci import Descriptor, Repository
from layerfs.registry import RegistrySettings
from layerfs.registry.client import RegistryClient
from layerfs.registry.credentials import Credential
from layerfs.registry.mirrors import places
from layerfs.registry.mirrors.values import HostLink
from layerfs.registry.reach import Reach
from layerfs.registry.redirects import Request, follow
from layerfs.registry.servers import REST, KnownServer
from tests.support.certificates import Certificate, authority, issue
from tests.support.faulty_registry import PASSWORD, USER, Answer, FaultyRegistry, basic
from tests.support.images import file, image, layer
from tests.support.registry import free_port
from tests.support.registry_client import download, quick

BUILT = image(layer(file("a", b"first" * 1000)))
BLOB = BUILT.layers[0].descriptor()
CONFIG = Descriptor("application/vnd.oci.image.config.v1+json", BUILT.config_digest, len(BUILT.config))
NAME = "registry.invalid"
"""Of a registry whose server is named by hosts.toml alone."""
REPOSITORY = Repository.of(NAME, "a/b")


@pytest.fixture
def mirror() -> Iterator[FaultyRegistry]:
    with FaultyRegistry() as running:
        yield running


def configured(tmp_path: Path, text: str, name: str = NAME, **changes: Any) -> RegistrySettings:
    """Make settings of a hosts.toml for the registry *name*."""
    directory = tmp_path / "certs.d" / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "hosts.toml").write_text(text)
    found = places.load({"CONTAINERS_REGISTRIES_CONF": "/dev/null"}, None, tmp_path / "certs.d")
    return quick(mirrors=found, **changes)


def through(
    mirror: FaultyRegistry, registry: FaultyRegistry, tmp_path: Path, more: str = "", **changes: Any
) -> RegistrySettings:
    """Make settings of a hosts.toml that puts *mirror* before *registry*."""
    return configured(tmp_path, f'[host."http://{mirror.host}"]\n{more}', registry.host, **changes)


def paths(server: FaultyRegistry) -> list[str]:
    """Return what was asked of a server, in short."""
    return [
        f"{one.method} {one.path.rpartition('/a/b/')[2].partition('/')[0]} {one.status}"
        for one in server.asked
    ]


async def test_a_mirror_that_has_it_is_the_only_one_asked(
    tmp_path: Path, mirror: FaultyRegistry, faulty: FaultyRegistry
) -> None:
    mirror.push("a/b", "1", BUILT)
    async with RegistryClient(through(mirror, faulty, tmp_path)) as client:
        assert (await client.resolve(faulty.repository("a/b").with_tag("1"))).digest == BUILT.digest
        await client.fetch_manifest(faulty.repository("a/b"), BUILT.digest)
        assert (await download(client, faulty.repository("a/b"), BLOB))[1] == BUILT.layers[0].blob
        assert await client.locate(faulty.host) == "127.0.0.1"
        assert client.traffic.received.keys() == {"mirror"}
    assert faulty.asked == []
    assert {tuple(one.query["ns"]) for one in mirror.asked} == {(faulty.host,)}


@pytest.mark.parametrize("whole", [False, True], ids=["the tag", "the document, too"])
async def test_a_tag_is_resolved_by_who_may_and_the_rest_comes_from_the_mirror(
    tmp_path: Path, mirror: FaultyRegistry, faulty: FaultyRegistry, whole: bool
) -> None:
    for server in (mirror, faulty):
        server.push("a/b", "1", BUILT)
    async with RegistryClient(through(mirror, faulty, tmp_path, 'capabilities = ["pull"]')) as client:
        digest = (await client.resolve(faulty.repository("a/b").with_tag("1"), whole=whole)).digest
        await client.fetch_manifest(faulty.repository("a/b"), digest)
        await download(client, faulty.repository("a/b"), BLOB)
    assert paths(faulty) == ["HEAD manifests 200"]
    assert paths(mirror) == ["GET manifests 200", "GET blobs 200"]


async def test_a_miss_goes_to_the_next_at_once(
    tmp_path: Path, mirror: FaultyRegistry, faulty: FaultyRegistry
) -> None:
    faulty.push("a/b", "1", BUILT)
    async with RegistryClient(through(mirror, faulty, tmp_path)) as client:
        assert (await client.resolve(faulty.repository("a/b").with_tag("1"))).digest == BUILT.digest
        await client.fetch_manifest(faulty.repository("a/b"), BUILT.digest)
        await download(client, faulty.repository("a/b"), BLOB)
        assert client.traffic.fallbacks == 3
    assert paths(mirror) == ["HEAD manifests 404", "GET manifests 404", "GET blobs 404"]
    assert paths(faulty) == ["HEAD manifests 200", "GET manifests 200", "GET blobs 200"]


async def test_a_miss_is_not_asked_for_again_while_the_registry_is_waited_for(
    tmp_path: Path, mirror: FaultyRegistry, faulty: FaultyRegistry
) -> None:
    faulty.push("a/b", "1", BUILT)
    faulty.faults.first = [("manifests", Answer(503)), ("manifests", Answer(503))]
    async with RegistryClient(through(mirror, faulty, tmp_path)) as client:
        await client.fetch_manifest(faulty.repository("a/b"), BUILT.digest)
    assert paths(mirror) == ["GET manifests 404"]
    assert paths(faulty) == ["GET manifests 503", "GET manifests 503", "GET manifests 200"]


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
async def test_a_mirror_that_fails_in_any_way_is_passed_over(
    tmp_path: Path, mirror: FaultyRegistry, faulty: FaultyRegistry, status: int
) -> None:
    faulty.push("a/b", "1", BUILT)
    mirror.faults.always = [("/v2/", Answer(status, headers={"Retry-After": "60"}))]
    async with RegistryClient(through(mirror, faulty, tmp_path)) as client:
        assert (await client.resolve(faulty.repository("a/b").with_tag("1"))).digest == BUILT.digest
        await client.fetch_manifest(faulty.repository("a/b"), BUILT.digest)
        assert (await download(client, faulty.repository("a/b"), BLOB))[1] == BUILT.layers[0].blob


async def test_a_mirror_that_does_not_connect_is_left_alone(tmp_path: Path, faulty: FaultyRegistry) -> None:
    faulty.push("a/b", "1", BUILT)
    here = faulty.repository("a/b")
    text = f'[host."http://127.0.0.1:{free_port()}"]\ndial_timeout = "2s"'
    async with RegistryClient(configured(tmp_path, text, faulty.host)) as client:
        for wanted in ("2", "3"):
            with pytest.raises(NotFound) as caught:
                await client.resolve(here.with_tag(wanted))
            assert "not asked, left alone for" in caught.value.asked[0]  # the GET comes after the HEAD
            assert caught.value.asked[1] == f"{faulty.host}: status 404 (MANIFEST_UNKNOWN: not here)"
        await client.fetch_manifest(here, BUILT.digest)


async def test_the_last_is_asked_even_if_it_did_not_connect_lately(tmp_path: Path) -> None:
    text = f'server = "http://127.0.0.1:{free_port()}"\n[host."http://127.0.0.1:{free_port()}"]'
    async with RegistryClient(configured(tmp_path, text)) as client:
        for _ in range(2):
            with pytest.raises(Unreachable) as caught:
                await client.resolve(REPOSITORY.with_tag("1"))
            assert "no connection to" in caught.value.asked[1]


async def test_a_fleet_does_not_come_back_all_at_once() -> None:
    rests = []
    for _ in range(50):
        server = KnownServer(())
        server.rest()
        rests.append(server.left_alone)
    assert all(0.75 * REST < rest <= 1.25 * REST for rest in rests)
    assert max(rests) - min(rests) > 0.05 * REST


@pytest.mark.parametrize("wanted", ["manifest", "config"])
async def test_wrong_bytes_are_a_failure_of_who_sent_them(
    tmp_path: Path, mirror: FaultyRegistry, faulty: FaultyRegistry, wanted: str
) -> None:
    for server in (mirror, faulty):
        server.push("a/b", "1", BUILT)
    mirror.faults.wrong_bytes = True

    async def fetch(client: RegistryClient) -> None:
        if wanted == "manifest":
            await client.fetch_manifest(faulty.repository("a/b"), BUILT.digest)
        else:
            await client.fetch_config(faulty.repository("a/b"), CONFIG)

    async with RegistryClient(through(mirror, faulty, tmp_path)) as client:
        await fetch(client)
        faulty.faults.wrong_bytes = True
        with pytest.raises(DigestMismatch) as caught:
            await fetch(client)
    assert len(mirror.asked) == 1  # and then left alone
    assert len(caught.value.asked) == 2


@pytest.mark.parametrize("proven", [True, False])
async def test_who_gave_wrong_bytes_of_a_blob_is_not_asked_for_it_again(
    tmp_path: Path, mirror: FaultyRegistry, faulty: FaultyRegistry, proven: bool
) -> None:
    """Nor for anything else for a while, where that is proven: an image may lie of the parts of its blobs."""
    for server in (mirror, faulty):
        server.push("a/b", "1", BUILT)
    here, digest = faulty.repository("a/b"), BLOB.digest
    async with RegistryClient(through(mirror, faulty, tmp_path)) as client:
        assert not await client.doubt(here, digest, proven=True)  # nobody gave anything yet
        await download(client, here, BLOB)
        assert await client.doubt(here, digest, proven=proven)
        await client.fetch_manifest(here, BUILT.digest)
        assert (len(mirror.asked), len(faulty.asked)) == ((1, 1) if proven else (2, 0))
        await download(client, here, BLOB)
        assert (len(mirror.asked), len(faulty.asked)) == ((1, 2) if proven else (2, 1))
        assert not await client.doubt(here, digest, proven=True)  # now nobody is left


async def test_mirror_only_never_asks_the_registry(
    tmp_path: Path, mirror: FaultyRegistry, faulty: FaultyRegistry
) -> None:
    faulty.push("a/b", "1", BUILT)
    here = faulty.repository("a/b")
    async with RegistryClient(through(mirror, faulty, tmp_path, mirror_only=True)) as client:
        for use in (
            client.tags(here),
            client.resolve(here.with_tag("1")),
            client.fetch_manifest(here, BUILT.digest),
            download(client, here, BLOB),
        ):
            with pytest.raises(NotFound):
                await use
        with pytest.raises(Denied, match="no mirror of it is configured"):
            await client.tags(REPOSITORY)
    assert len(mirror.asked) == 5
    assert faulty.asked == []


WRONG = basic("planted", "wrong")


def logins(tmp_path: Path, *hosts: str) -> Path:
    path = tmp_path / "auth.json"
    auths = {host: {"auth": basic(USER, PASSWORD).removeprefix("Basic ")} for host in hosts}
    path.write_text(json.dumps({"auths": auths}))
    return path


def sent(server: FaultyRegistry) -> str:
    """Return all that a server and its storage were sent."""
    return repr([*server.asked, *server.storage.asked])


async def test_what_belongs_to_one_host_reaches_no_other(
    tmp_path: Path, mirror: FaultyRegistry, faulty: FaultyRegistry
) -> None:
    """Logins, tokens, headers: of the mirror, of the registry, of where both redirect to."""
    faulty.push("a/b", "1", BUILT)
    mirror.push("a/b", "1", BUILT)
    more = 'capabilities = ["pull"]\nheader = {X-Mirror = "planted-of-mirror"}\n'
    text = f'header = {{X-Up = "planted-of-registry"}}\n[host."http://{mirror.host}"]\n{more}'
    for server in (mirror, faulty):
        server.faults.auth = "bearer"
        server.faults.anonymous = False
        server.faults.redirect_to_storage = True
    auth = logins(tmp_path, faulty.host, mirror.host)
    async with RegistryClient(configured(tmp_path, text, faulty.host, authfile=auth)) as client:
        await client.resolve(faulty.repository("a/b").with_tag("1"))
        await client.fetch_manifest(faulty.repository("a/b"), BUILT.digest)
        await download(client, faulty.repository("a/b"), BLOB)
    assert mirror.tokens.keys().isdisjoint(faulty.tokens)
    for mine, others in ((mirror, faulty), (faulty, mirror)):
        assert mine.tokens
        assert [token for token in mine.tokens if token in sent(others)] == []
    assert "planted-of-mirror" in repr(mirror.asked)
    assert "planted-of-registry" in repr(faulty.asked)
    assert "planted-of-mirror" not in sent(faulty) + repr(mirror.storage.asked)
    assert "planted-of-registry" not in sent(mirror) + repr(faulty.storage.asked)


@pytest.mark.parametrize("auth", ["bearer", "basic"])
async def test_a_mirror_gets_no_login_of_the_registry(
    tmp_path: Path, mirror: FaultyRegistry, faulty: FaultyRegistry, auth: Any
) -> None:
    faulty.push("a/b", "1", BUILT)
    mirror.push("a/b", "1", BUILT)
    faulty.faults.auth = mirror.faults.auth = auth
    faulty.faults.anonymous = mirror.faults.anonymous = False
    mirror.faults.realm = f"http://{faulty.host}/token" if auth == "bearer" else None
    for found in (
        {"authfile": logins(tmp_path, faulty.host)},
        {"login": Credential("--creds", USER, PASSWORD)},
    ):
        async with RegistryClient(through(mirror, faulty, tmp_path, **found)) as client:
            await client.fetch_manifest(faulty.repository("a/b"), BUILT.digest)
    assert [one for one in mirror.asked if "authorization" in one.headers] == []
    assert [one.status for one in faulty.asked if one.path.startswith("/v2/") and one.status == 200] == [
        200,
        200,
    ]


async def test_a_login_goes_through_a_mirror_that_may(
    tmp_path: Path, mirror: FaultyRegistry, faulty: FaultyRegistry
) -> None:
    """As a Dragonfly: what it wants is a token of the registry."""
    mirror.push("a/b", "1", BUILT)
    mirror.faults.auth, mirror.faults.realm = "bearer", f"http://{faulty.host}/token"
    mirror.tokens = faulty.tokens
    faulty.faults.anonymous = False
    auth = logins(tmp_path, faulty.host)
    settings = through(mirror, faulty, tmp_path, authfile=auth, forward_credentials=frozenset({mirror.host}))
    async with RegistryClient(settings) as client:
        await client.fetch_manifest(faulty.repository("a/b"), BUILT.digest)
    assert paths(mirror) == ["GET manifests 401", "GET manifests 200"]
    assert [one.path for one in faulty.asked] == ["/token"]


async def test_a_mirror_that_may_cannot_have_the_password_sent_in_the_clear(
    tmp_path: Path, mirror: FaultyRegistry, faulty: FaultyRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.faults.auth, mirror.faults.realm = "bearer", "http://token.invalid/token"
    auth = logins(tmp_path, faulty.host)
    settings = through(mirror, faulty, tmp_path, authfile=auth, forward_credentials=frozenset({mirror.host}))
    async with RegistryClient(settings) as client:
        with pytest.raises(NotFound) as caught:
            await client.fetch_manifest(faulty.repository("a/b"), BUILT.digest)
    assert "without TLS" in caught.value.asked[0]


async def test_two_registries_behind_one_mirror_share_no_token(
    tmp_path: Path, mirror: FaultyRegistry
) -> None:
    mirror.push("a/b", "1", BUILT)
    mirror.faults.auth = "bearer"
    (tmp_path / "certs.d/_default").mkdir(parents=True)
    (tmp_path / "certs.d/_default/hosts.toml").write_text(f'server = "http://{mirror.host}"')
    found = places.load({"CONTAINERS_REGISTRIES_CONF": "/dev/null"}, None, tmp_path / "certs.d")
    async with RegistryClient(quick(mirrors=found)) as client:
        for name in ("one.invalid", "two.invalid"):
            await client.fetch_manifest(Repository.of(name, "a/b"), BUILT.digest)
    assert len(mirror.tokens) == 2


async def test_headers_of_the_user_are_sent_and_a_login_is_better(
    tmp_path: Path, mirror: FaultyRegistry
) -> None:
    mirror.push("a/b", "1", BUILT)
    mirror.faults.auth = "basic"
    text = f'server = "http://{mirror.host}"\nheader = {{Authorization = "{WRONG}", X-Two = ["a", "b"]}}'
    auth = logins(tmp_path, mirror.host)
    async with RegistryClient(configured(tmp_path, text, authfile=auth)) as client:
        await client.fetch_manifest(REPOSITORY, BUILT.digest)
    first, last = mirror.asked[0], mirror.asked[-1]
    assert first.headers["authorization"] == WRONG
    assert last.headers["authorization"] == basic(USER, PASSWORD)


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def identity(trusted: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return issue(tmp_path_factory.mktemp("identity"), trusted, "127.0.0.1")


@pytest.mark.parametrize(
    ("more", "works"),
    [
        pytest.param('ca = "{ca}"\nclient = [["{cert}", "{key}"]]', True, id="both"),
        pytest.param('skip_verify = true\nclient = [["{cert}", "{key}"]]', True, id="not verified"),
        pytest.param('ca = "{ca}"', False, id="no certificate of our own"),
        pytest.param('ca = "{other}"\nclient = [["{cert}", "{key}"]]', False, id="another authority"),
    ],
)
async def test_a_host_has_an_authority_and_a_certificate_of_its_own(
    tmp_path: Path, trusted: Certificate, identity: Certificate, more: str, works: bool
) -> None:
    context = identity.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(trusted.certificate)
    other = authority(tmp_path, "other")
    with FaultyRegistry(context) as server:
        server.push("a/b", "1", BUILT)
        text = f'server = "https://{server.host}"\n' + more.format(
            ca=trusted.certificate, cert=identity.certificate, key=identity.key, other=other.certificate
        )
        async with RegistryClient(configured(tmp_path, text)) as client:
            if works:
                await client.fetch_manifest(REPOSITORY, BUILT.digest)
            else:
                with pytest.raises(Unreachable):
                    await client.fetch_manifest(REPOSITORY, BUILT.digest)


@pytest.mark.parametrize(
    ("location", "kept"), [("/elsewhere", True), ("https://b.io/x", False), ("https://a.io:444/x", False)]
)
def test_where_a_host_redirects_to_it_does_not_take_its_ways_along(location: str, kept: bool) -> None:
    ways = HostLink(
        authorities=(Path("/ca"),), client=((Path("/c"), None),), skip_verify=True, proxy="http://p"
    )
    request = Request("GET", "https://a.io/v2/", more=(("X-Own", "planted"),), link=ways)
    followed = follow(request, 307, location, Reach("public"))
    assert (followed.link == ways, followed.more != ()) == (kept, kept)
    assert ("planted" in repr(followed.headers("layerfs"))) == kept


async def test_an_error_has_a_line_for_each_that_was_asked(
    tmp_path: Path, mirror: FaultyRegistry, faulty: FaultyRegistry
) -> None:
    mirror.faults.always = [
        ("/v2/", Answer(500, b'{"errors": [{"code": "DOWN", "message": "?sig=planted"}]}'))
    ]
    async with RegistryClient(through(mirror, faulty, tmp_path)) as client:
        with pytest.raises(NotFound) as caught:
            await client.fetch_manifest(faulty.repository("a/b"), BUILT.digest)
    assert caught.value.asked_lines == [
        f"{mirror.host}: status 500 (DOWN: ?...)",
        f"{faulty.host}: status 404 (NAME_UNKNOWN: not here)",
    ]
    assert "\n" not in str(caught.value)
    assert "planted" not in str(caught.value)
