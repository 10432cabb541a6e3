"""HTTPS everywhere, whom to believe, what insecure allows; proxies that give names to loopback servers."""

import json
import shutil
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerfs.errors import InvalidSettings, RegistryMisbehaved, Unreachable
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.registry import RetryPolicy
from layerfs.registry.client import RegistryClient
from tests.support.certificates import Certificate, authority, issue
from tests.support.faulty_registry import FaultyRegistry
from tests.support.images import file, image, layer
from tests.support.proxy import Proxy
from tests.support.registry_client import download, quick

BUILT = image(layer(file("a", b"first")))
BLOB = BUILT.layers[0].descriptor()
NAME = "registry.test"


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server_certificate(trusted: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return issue(tmp_path_factory.mktemp("server"), trusted, NAME, "registry-1.docker.io", "127.0.0.1")


@pytest.fixture
def secure(server_certificate: Certificate) -> Iterator[FaultyRegistry]:
    """A registry with TLS, reachable as registry.test through a proxy."""
    with FaultyRegistry(server_certificate.server_context()) as running:
        running.push("a/b", "1", BUILT)
        yield running


@pytest.fixture
def certs_dirs(tmp_path: Path, trusted: Certificate) -> tuple[Path, ...]:
    """Where the tests' authority is trusted for the registry alone."""
    for name in (NAME, "registry-1.docker.io:443"):
        directory = tmp_path / "certs.d" / name
        directory.mkdir(parents=True)
        shutil.copy(trusted.certificate, directory / "ca.crt")
    return (tmp_path / "absent", tmp_path / "certs.d")


def through(proxy: Proxy) -> dict[str, str]:
    return {"HTTPS_PROXY": proxy.url, "http_proxy": proxy.url}


@pytest.fixture
def repository() -> Repository:
    return Repository.of(NAME, "a/b")


async def test_a_registry_with_a_certificate_to_believe_is_used(
    secure: FaultyRegistry, certs_dirs: tuple[Path, ...], repository: Repository
) -> None:
    with Proxy({f"{NAME}:443": secure.main.port}) as proxy:
        async with RegistryClient(quick(environment=through(proxy), certs_dirs=certs_dirs)) as client:
            assert (await client.resolve(repository.with_tag("1"))).digest == BUILT.digest
            assert (await download(client, repository, BLOB))[1] == BUILT.layers[0].blob
    assert proxy.asked == [f"{NAME}:443"]


async def test_docker_hub_is_asked_where_it_lives(
    secure: FaultyRegistry, certs_dirs: tuple[Path, ...]
) -> None:
    secure.push("library/alpine", "3", BUILT)
    with Proxy({"registry-1.docker.io:443": secure.main.port}) as proxy:
        async with RegistryClient(quick(environment=through(proxy), certs_dirs=certs_dirs)) as client:
            assert (await client.resolve(Repository.parse("alpine").with_tag("3"))).digest == BUILT.digest
    assert secure.asked[0].headers["host"] == "registry-1.docker.io"


async def test_a_certificate_by_an_unknown_authority_is_refused(
    secure: FaultyRegistry, repository: Repository
) -> None:
    with Proxy({f"{NAME}:443": secure.main.port}) as proxy:
        async with RegistryClient(quick(environment=through(proxy))) as client:
            with pytest.raises(Unreachable, match=r"not to be believed: unable to get .*certs\.d"):
                await client.resolve(repository.with_tag("1"))
    assert not secure.asked


async def test_a_certificate_for_another_host_is_refused(
    secure: FaultyRegistry, certs_dirs: tuple[Path, ...], tmp_path: Path
) -> None:
    (tmp_path / "certs.d" / "other.test").symlink_to(tmp_path / "certs.d" / NAME)
    with Proxy({"other.test:443": secure.main.port}) as proxy:
        async with RegistryClient(quick(environment=through(proxy), certs_dirs=certs_dirs)) as client:
            with pytest.raises(Unreachable, match=r"(?i)not to be believed: hostname mismatch"):
                await client.resolve(Repository.of("other.test", "a/b").with_tag("1"))


async def test_a_name_that_does_not_exist_is_not_asked_for_again(repository: Repository) -> None:
    patient = RetryPolicy(base=1000, window=10_000)
    async with RegistryClient(quick(retry=patient)) as client:
        with pytest.raises(Unreachable, match=r"no host of the name registry\.test; check"):
            await client.resolve(repository.with_tag("1"))


async def test_plain_http_is_never_tried_for_a_registry_that_is_not_insecure(
    faulty: FaultyRegistry, repository: Repository
) -> None:
    faulty.push("a/b", "1", BUILT)
    with Proxy({f"{NAME}:443": faulty.main.port, NAME: faulty.main.port}) as proxy:
        async with RegistryClient(quick(environment=through(proxy))) as client:
            with pytest.raises(Unreachable):
                await client.resolve(repository.with_tag("1"))
    assert set(proxy.asked) == {f"{NAME}:443"}
    assert not faulty.asked


async def test_an_insecure_registry_may_have_any_certificate(
    secure: FaultyRegistry, repository: Repository
) -> None:
    with Proxy({f"{NAME}:443": secure.main.port}) as proxy:
        settings = quick(environment=through(proxy), insecure=frozenset({NAME}))
        async with RegistryClient(settings) as client:
            assert (await client.resolve(repository.with_tag("1"))).digest == BUILT.digest


async def test_an_insecure_registry_may_have_no_tls(faulty: FaultyRegistry, repository: Repository) -> None:
    faulty.push("a/b", "1", BUILT)
    with Proxy({NAME: faulty.main.port}) as proxy:
        settings = quick(environment=through(proxy), insecure=frozenset({NAME}))
        async with RegistryClient(settings) as client:
            assert (await client.resolve(repository.with_tag("1"))).digest == BUILT.digest
            await client.fetch_manifest(repository, BUILT.digest)
    assert proxy.asked.count(f"{NAME}:443") == 1  # found out once


async def test_a_loopback_registry_may_have_tls(secure: FaultyRegistry) -> None:
    async with RegistryClient(quick()) as client:
        repository = secure.repository("a/b")
        assert (await client.resolve(repository.with_tag("1"))).digest == BUILT.digest
        assert (await download(client, repository, BLOB))[1] == BUILT.layers[0].blob


async def test_a_redirect_from_https_to_http_is_refused_unless_insecure(
    secure: FaultyRegistry, certs_dirs: tuple[Path, ...], repository: Repository
) -> None:
    secure.faults.redirect_to_storage = True
    with Proxy({f"{NAME}:443": secure.main.port}) as proxy:
        async with RegistryClient(quick(environment=through(proxy), certs_dirs=certs_dirs)) as client:
            with pytest.raises(RegistryMisbehaved, match=r"from https to .*not followed"):
                await download(client, repository, BLOB)
        assert not secure.storage.asked
        settings = quick(
            environment=through(proxy),
            insecure=frozenset({NAME}),
            reachable_networks=frozenset({"127.0.0.0/8"}),
        )
        async with RegistryClient(settings) as client:
            assert (await download(client, repository, BLOB))[1] == BUILT.layers[0].blob


async def test_nothing_is_sent_to_a_token_server_without_tls(
    secure: FaultyRegistry, certs_dirs: tuple[Path, ...], repository: Repository
) -> None:
    secure.faults.auth = "bearer"
    secure.faults.realm = f"http://{secure.storage.host}/token"
    with Proxy({f"{NAME}:443": secure.main.port}) as proxy:
        async with RegistryClient(quick(environment=through(proxy), certs_dirs=certs_dirs)) as client:
            with pytest.raises(RegistryMisbehaved, match="without TLS to"):
                await client.resolve(repository.with_tag("1"))
    assert not secure.storage.asked


def _unreadable(directory: Path) -> None:
    (directory / "bad.crt").write_text("no certificate")


def _without_key(directory: Path) -> None:
    shutil.copy(directory / "ca.crt", directory / "client.cert")


def _without_certificate(directory: Path) -> None:
    (directory / "client.key").write_text("")


@pytest.mark.parametrize("damage", [_unreadable, _without_key, _without_certificate])
async def test_a_certificate_that_cannot_be_used_is_named(
    certs_dirs: tuple[Path, ...], repository: Repository, damage: Callable[[Path], None]
) -> None:
    damage(certs_dirs[1] / NAME)
    async with RegistryClient(quick(certs_dirs=certs_dirs)) as client:
        with pytest.raises(InvalidSettings, match=r"certs\.d/registry\.test/(bad\.crt|client\.)"):
            await client.resolve(repository.with_tag("1"))


async def test_a_client_shows_its_own_certificate_where_it_has_one(
    trusted: Certificate,
    server_certificate: Certificate,
    certs_dirs: tuple[Path, ...],
    repository: Repository,
) -> None:
    context = server_certificate.server_context()
    context.load_verify_locations(trusted.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    own = issue(certs_dirs[1], trusted, "client")
    with FaultyRegistry(context) as demanding, Proxy({f"{NAME}:443": demanding.main.port}) as proxy:
        demanding.push("a/b", "1", BUILT)
        settings = quick(environment=through(proxy), certs_dirs=certs_dirs)
        async with RegistryClient(settings) as client:
            with pytest.raises(Unreachable):
                await client.resolve(repository.with_tag("1"))
        shutil.copy(own.certificate, certs_dirs[1] / NAME / "client.cert")
        shutil.copy(own.key, certs_dirs[1] / NAME / "client.key")
        async with RegistryClient(settings) as client:
            assert (await client.resolve(repository.with_tag("1"))).digest == BUILT.digest


@pytest.mark.allow_warnings
async def test_an_image_cannot_make_us_call_services_of_our_own_network(
    secure: FaultyRegistry, certs_dirs: tuple[Path, ...], repository: Repository
) -> None:
    where = f"{secure.storage.host}/data/{BLOB.digest}"
    port = where.partition(":")[2]
    urls = (
        f"http://{where}",
        f"http://localhost:{port}",
        f"http://[::1]:{port}",
        "http://169.254.169.254/",
        "x:y",
    )
    foreign = Descriptor(
        "application/vnd.oci.image.layer.nondistributable.v1.tar", BLOB.digest, BLOB.size, urls
    )
    with Proxy({f"{NAME}:443": secure.main.port}) as proxy:
        async with RegistryClient(quick(environment=through(proxy), certs_dirs=certs_dirs)) as client:
            assert (await download(client, repository, foreign))[1] == BUILT.layers[0].blob
    assert not secure.storage.asked
    assert set(proxy.asked) == {f"{NAME}:443"}


async def test_a_foreign_layer_may_come_from_a_public_host(
    secure: FaultyRegistry, faulty: FaultyRegistry, certs_dirs: tuple[Path, ...], repository: Repository
) -> None:
    faulty.push("a/b", "1", BUILT)
    foreign = Descriptor(
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        BLOB.digest,
        BLOB.size,
        (f"http://public.test/data/{BLOB.digest}",),
    )
    with Proxy({f"{NAME}:443": secure.main.port, "public.test": faulty.storage.port}) as proxy:
        async with RegistryClient(quick(environment=through(proxy), certs_dirs=certs_dirs)) as client:
            assert (await download(client, repository, foreign))[1] == BUILT.layers[0].blob
    assert not secure.asked


# Proxies


async def test_loopback_is_never_asked_through_a_proxy(faulty: FaultyRegistry) -> None:
    faulty.push("a/b", "1", BUILT)
    with Proxy({}) as proxy:
        async with RegistryClient(quick(environment=through(proxy))) as client:
            await client.resolve(faulty.repository("a/b").with_tag("1"))
    assert not proxy.asked


async def test_a_proxy_with_a_login_gets_it_and_no_error_shows_it(
    secure: FaultyRegistry, certs_dirs: tuple[Path, ...], repository: Repository
) -> None:
    with Proxy({f"{NAME}:443": secure.main.port}, login="user:planted") as proxy:
        async with RegistryClient(quick(environment=through(proxy), certs_dirs=certs_dirs)) as client:
            assert (await client.resolve(repository.with_tag("1"))).digest == BUILT.digest
        environment = {"HTTPS_PROXY": proxy.url.replace("planted", "wrong-planted")}
        async with RegistryClient(quick(environment=environment, certs_dirs=certs_dirs)) as client:
            with pytest.raises(Unreachable, match="407") as caught:
                await client.resolve(repository.with_tag("1"))
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["ftp://user:planted@h:1", "http://[::1", "http://user:planted@h:99999999"])
async def test_a_proxy_that_cannot_be_used_is_named_without_its_login(
    repository: Repository, proxy: str
) -> None:
    async with RegistryClient(quick(environment={"HTTPS_PROXY": proxy})) as client:
        with pytest.raises(InvalidSettings, match=r"proxy .* cannot be used") as caught:
            await client.resolve(repository.with_tag("1"))
    assert "planted" not in str(caught.value)


async def test_the_environment_itself_is_not_read(
    faulty: FaultyRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever gives an environment gets that one: no proxy, file or netrc of the process is used."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login planted password planted")
    (tmp_path / ".docker").mkdir()
    auths = {"auths": {faulty.host: {"username": "planted", "password": "planted"}}}
    (tmp_path / ".docker/config.json").write_text(json.dumps(auths))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    faulty.faults.auth = "bearer"
    digest = faulty.push_raw("a/b", "1", b"{}", "")
    async with RegistryClient(quick()) as client:
        assert (
            (await client.resolve(faulty.repository("a/b").with_tag("1"))).digest
            == digest
            == Digest.of(b"{}")
        )
    assert all("authorization" not in asked.headers for asked in faulty.asked if asked.path == "/token")
