"""How one call talks to registries: the words of podman and skopeo that hold for it alone."""

import random
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs import app
from layerfs.cli.switches import _without_values
from layerfs.errors import InvalidSettings
from layerfs.processes.messages import packed, unpacked
from layerfs.registry import RegistrySettings
from layerfs.registry.mirrors.values import HostLink
from layerfs.registry.reach import Reach
from layerfs.registry.tls import context
from layerfs.registry.transport import Transport
from layerfs.registry.weborigin import WebOrigin
from layerfs.settings import Access, Settings
from layerfs.settings.kinds import DURATION, UserPassword
from tests.cli.conftest import CommandLine
from tests.support.certificates import Certificate, authority, issue
from tests.support.faulty_registry import Answer, FaultyRegistry
from tests.support.images import file, image, layer
from tests.support.proxy import Proxy
from tests.support.registry import Registry

BUILT = image(layer(file("a", b"1")))
PASSWORD = "p:ss-word"
CREDS = ("--creds", f"robot:{PASSWORD}")


@pytest.fixture
def private(own_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry that only robot may read."""
    own_registry.push("a", "1", BUILT)
    made = subprocess.run(["htpasswd", "-Bbn", "robot", PASSWORD], capture_output=True, check=True)
    (tmp_path / "htpasswd").write_bytes(made.stdout)
    monkeypatch.setenv("REGISTRY_AUTH", "htpasswd")
    monkeypatch.setenv("REGISTRY_AUTH_HTPASSWD_REALM", "tests")
    monkeypatch.setenv("REGISTRY_AUTH_HTPASSWD_PATH", str(tmp_path / "htpasswd"))
    own_registry.stop()
    own_registry.start()
    return own_registry


@pytest.fixture
def certificates(tmp_path: Path) -> Certificate:
    """An authority, and a certificate for registry.test by it, with its key, in the directory "own"."""
    (tmp_path / "own").mkdir()
    by = authority(tmp_path)
    made = issue(tmp_path, by, "registry.test")
    shutil.copy(by.certificate, tmp_path / "own/ca.crt")
    shutil.copy(made.certificate, tmp_path / "own/client.cert")
    shutil.copy(made.key, tmp_path / "own/client.key")
    return made


@pytest.fixture
def secure(certificates: Certificate) -> Iterator[FaultyRegistry]:
    """A registry with TLS that its proxy calls registry.test."""
    with FaultyRegistry(certificates.server_context()) as running:
        running.push("a/b", "1", BUILT)
        yield running


def test_creds_let_in_for_one_call_and_are_kept_nowhere(layerfs: CommandLine, private: Registry) -> None:
    name = f"{private.host}/a:1"

    for verb, named in {"pull": name, "digest": name, "tags": f"{private.host}/a", "tree": name}.items():
        layerfs(verb, named, *CREDS)
    layerfs("digest", name, code=4)

    files = [path for path in layerfs.home.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if b"ss-word" in path.read_bytes()] == []


def test_creds_are_stronger_than_a_login_that_is_kept(layerfs: CommandLine, private: Registry) -> None:
    layerfs("login", "-u", "robot", "-p", PASSWORD, private.host)
    shown = layerfs("digest", "--creds", "robot:wrong-secret", f"{private.host}/a:1", code=4).stderr
    assert "user 'robot' of --creds" in shown
    assert "wrong-secret" not in shown


def test_no_repr_shows_the_password_and_helpers_get_it_as_a_message() -> None:
    access = Access(creds=UserPassword("robot", PASSWORD), retry=9, timeout=2.5, tls_verify=False)
    settings = Settings(store=Path("/s"), access=access)
    asked = app.registry_settings(settings)

    assert asked.login is not None
    assert (asked.login.username, asked.login.password) == ("robot", PASSWORD)
    assert "ss-word" not in repr((access, settings, asked))
    assert unpacked(packed(asked), RegistrySettings) == asked


def test_tls_is_verified_or_not_as_the_call_says(layerfs: CommandLine, secure: FaultyRegistry) -> None:
    with Proxy({"registry.test:443": secure.main.port}) as proxy:
        environment = {"HTTPS_PROXY": proxy.url}

        def digest(*options: str, code: int = 0, **more: str) -> str:
            done = layerfs(
                "digest", *options, "registry.test/a/b:1", code=code, environment=environment | more
            )
            return done.stdout + done.stderr

        assert digest("--tls-verify=false") == f"{BUILT.digest}\n"
        assert digest("--no-tls-verify") == f"{BUILT.digest}\n"
        assert digest(LAYERFS_INSECURE_REGISTRY="registry.test") == f"{BUILT.digest}\n"
        for insists in ("--tls-verify", "--tls-verify=true"):
            said = digest(insists, code=5, LAYERFS_INSECURE_REGISTRY="registry.test")
            assert "not to be believed" in said


def test_with_tls_verify_loopback_is_no_exception(layerfs: CommandLine, registry: Registry) -> None:
    tag = registry.push("access/a", "1", BUILT)
    said = layerfs("digest", "--tls-verify", "--retry", "0", str(tag), code=5).stderr
    assert f"https://{registry.host} does not answer with TLS" in said
    assert layerfs("digest", str(tag)).stdout == f"{BUILT.digest}\n"


def test_cert_dir_has_the_authorities_and_the_certificate_to_show(
    layerfs: CommandLine, certificates: Certificate, tmp_path: Path
) -> None:
    context = certificates.server_context()
    context.load_verify_locations(tmp_path / "own/ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    with FaultyRegistry(context) as running, Proxy({"registry.test:443": running.main.port}) as proxy:
        running.push("a/b", "1", BUILT)
        environment = {"HTTPS_PROXY": proxy.url}
        own = tmp_path / "own"
        done = layerfs("digest", "--cert-dir", own, "registry.test/a/b:1", environment=environment)
    assert done.stdout == f"{BUILT.digest}\n"


def test_what_a_registry_leads_to_is_not_shown_the_certificate(tmp_path: Path) -> None:
    transport = Transport(RegistrySettings(environment={}, cert_dir=tmp_path))
    origin = WebOrigin.of("https://registry.test")
    assert transport._route(origin, False, None, HostLink()).shows_itself
    assert not transport._route(origin, False, Reach("public"), HostLink()).shows_itself


def test_a_certificate_that_is_not_to_be_shown_is_not_loaded(
    certificates: Certificate, tmp_path: Path
) -> None:
    (tmp_path / "own/client.key").write_text("no key")
    with pytest.raises(InvalidSettings, match=r"client\.cert"):
        context(tmp_path / "own", verify=True)
    assert context(tmp_path / "own", verify=True, own=False).cert_store_stats()["x509_ca"] > 0


def test_retry_counts_attempts_and_says_how_many_there_were(layerfs: CommandLine) -> None:
    nobody = "127.0.0.1:1/a/b:1"
    assert "given up" not in layerfs("digest", "--retry", "0", nobody, code=5).stderr
    assert "and 2 attempts)" in layerfs("digest", "--retry", "1", nobody, code=5).stderr


def test_a_registry_that_is_silent_is_given_up_after_the_timeout(
    layerfs: CommandLine, own_registry: Registry
) -> None:
    tag = own_registry.push("a", "1", BUILT)
    with own_registry.paused():
        said = layerfs("pull", "--timeout", "1s", str(tag), code=5).stderr
    assert re.search(r"given up after [1-9]\d* s and 1 attempt", said)


def test_a_blob_that_stops_coming_is_given_up_after_the_timeout(
    layerfs: CommandLine, faulty: FaultyRegistry
) -> None:
    large = layer(file("a", random.Random(1).randbytes(200_000)))
    faulty.push("a/b", "1", image(large))
    half = Answer(200, large.blob, cut=100_000, stall=True)
    faulty.faults.always = [(f"blobs/{large.digest}", half)]
    said = layerfs("pull", "--timeout", "1s", f"{faulty.host}/a/b:1", code=5).stderr
    assert re.search(r"given up [1-9]\d* s after the last byte", said)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30s", 30), ("1.5m", 90), ("1h30m", 5400), ("500ms", 0.5), ("1m5", 65)]
)
def test_a_duration_is_read_as_go_and_podman_write_it(text: str, seconds: float) -> None:
    assert DURATION.of_option(text, "--timeout") == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "soon", "5 m", "-1", "5d", "1e9", "30s5x", "s", "5.s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidSettings, match="no duration"):
        DURATION.of_option(text, "--timeout")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--tls-verify=false", "x"], ["--no-tls-verify", "x"]),
        (["--tls-verify=T"], ["--tls-verify"]),
        (["--quiet=true", "-q=1"], ["--quiet", "-q"]),
        (["--quiet=false"], []),
        (["--offline=0"], ["--online"]),
        (["--tls-verify=maybe"], ["--tls-verify=maybe"]),
        (["--", "--quiet=false"], ["--", "--quiet=false"]),
    ],
)
def test_flags_take_a_value(words: list[str], meant: list[str]) -> None:
    forms = {
        "--tls-verify": ("--tls-verify", "--no-tls-verify"),
        "--offline": ("--offline", "--online"),
        "--quiet": ("--quiet", None),
        "-q": ("-q", None),
    }
    assert list(_without_values(words, forms)) == meant
