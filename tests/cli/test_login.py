"""`layerfs login` and `logout`: checked at the registry, kept where podman reads them, for nobody else."""

import json
import os
import stat
import subprocess
import tempfile
from base64 import b64decode
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.support.images import file, image, layer
from tests.support.registry import Registry

BUILT = image(layer(file("a", b"1")))
PASSWORD = "p:ss word"


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


def test_a_login_lets_layerfs_and_podman_in_until_it_is_removed(
    layerfs: CommandLine, private: Registry
) -> None:
    name = f"{private.host}/a:1"
    assert "layerfs login" in layerfs("digest", name, code=4).stderr

    done = layerfs(
        "login", "-u", "robot", "--password-stdin", f"http://{private.host}/", stdin=f"{PASSWORD}\n"
    )
    path = layerfs.home / "run/containers/auth.json"
    assert done.stdout == f"logged in to {private.host} as robot; kept in {path}\n"
    assert PASSWORD not in done.stdout + done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    entry = json.loads(path.read_text())["auths"][private.host]["auth"]
    assert b64decode(entry).decode() == f"robot:{PASSWORD}"
    assert layerfs("digest", name).stdout == f"{BUILT.digest}\n"
    podman = ["podman", "login", "--get-login", private.host]
    shown = subprocess.run(podman, env=layerfs.environment, capture_output=True, text=True, check=True)
    assert shown.stdout == "robot\n"
    skopeo = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{name}"]
    shown = subprocess.run(skopeo, env=layerfs.environment, capture_output=True, text=True, check=True)
    assert shown.stdout == f"{BUILT.digest}\n"

    layerfs("logout", private.host)
    layerfs("digest", name, code=4)
    assert "not logged in" in layerfs("logout", private.host, code=3).stderr


def test_what_podman_wrote_lets_layerfs_in(layerfs: CommandLine, private: Registry) -> None:
    podman = ["podman", "login", "--tls-verify=false", "-u", "robot", "--password-stdin", private.host]
    subprocess.run(
        podman, env=layerfs.environment, input=PASSWORD, text=True, check=True, capture_output=True
    )
    assert layerfs("digest", f"{private.host}/a:1").stdout == f"{BUILT.digest}\n"
    layerfs("logout", private.host)


def test_the_words_of_podman_work_too(layerfs: CommandLine, private: Registry) -> None:
    assert "not logged in" in layerfs("login", "--get-login", private.host, code=3).stderr
    layerfs("login", "-u", "robot", "-p", PASSWORD, private.host)
    assert layerfs("login", "--get-login", private.host).stdout == "robot\n"
    layerfs("login", "--offline", "-u", "other", "-p", "x", "example.com")
    lines = layerfs("logout", "--all").stdout.splitlines()
    assert [line.split()[4] for line in lines] == [private.host, "example.com"]
    layerfs("login", "--get-login", private.host, code=3)
    assert layerfs("logout", "--all").stdout == ""
    for arguments in ((), ("--all", "ghcr.io")):
        assert "expected one of the two" in layerfs("logout", *arguments, code=2).stderr


def test_a_wrong_password_is_denied_and_kept_nowhere(layerfs: CommandLine, private: Registry) -> None:
    done = layerfs("login", "-u", "robot", "--password-stdin", private.host, stdin="wrong-secret", code=4)
    assert "wrong-secret" not in done.stdout + done.stderr
    assert list(layerfs.home.rglob("*.json")) == []


def test_a_registry_that_is_away_is_a_network_error_unless_offline(
    layerfs: CommandLine, own_registry: Registry
) -> None:
    own_registry.stop()
    arguments = ["login", "-u", "me", "--password-stdin", own_registry.host]
    layerfs(*arguments, "--offline", "--authfile", layerfs.home / "mine.json", stdin="x")
    assert own_registry.host in (layerfs.home / "mine.json").read_text()


@pytest.mark.parametrize(
    ("variable", "place", "key"),
    [
        ("REGISTRY_AUTH_FILE", "mine.json", "docker.io"),
        ("DOCKER_CONFIG", "docker/config.json", "https://index.docker.io/v1/"),
    ],
)
def test_the_file_and_the_key_are_those_that_its_reader_expects(
    layerfs: CommandLine, variable: str, place: str, key: str
) -> None:
    path = layerfs.home / place
    value = str(path.parent if variable == "DOCKER_CONFIG" else path)
    arguments = ["login", "--offline", "-u", "me", "--password-stdin", "index.docker.io"]
    layerfs(*arguments, stdin="x", environment={variable: value})
    assert list(json.loads(path.read_text())["auths"]) == [key]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["login", "-u", "me", "ghcr.io"], "--password-stdin"),
        (["login", "--password-stdin", "ghcr.io"], "--username"),
        (["login", "-u", "me", "--password-stdin", "ghcr.io"], "empty password"),
        (["login", "-u", "me", "--password-stdin", "alpine/x"], "not a registry"),
        (["login", "-u", "me", "-p", "x", "--password-stdin", "ghcr.io"], "expected one of the two"),
        (["login", "-u", "a:b", "--password-stdin", "--offline", "ghcr.io"], "password"),
    ],
)
def test_what_is_missing_is_said(layerfs: CommandLine, arguments: list[str], complaint: str) -> None:
    assert complaint in layerfs(*arguments, code=2).stderr


def test_a_helper_that_keeps_the_logins_is_not_gone_around(layerfs: CommandLine) -> None:
    path = layerfs.home / "auth.json"
    path.write_text(json.dumps({"credHelpers": {"ghcr.io": "pass"}}))
    arguments = ["login", "--offline", "--authfile", str(path), "-u", "me", "--password-stdin", "ghcr.io"]
    assert "docker-credential-pass" in layerfs(*arguments, stdin="x", code=2).stderr
    assert os.path.getsize(path) == len(json.dumps({"credHelpers": {"ghcr.io": "pass"}}))


@pytest.mark.needs_root
def test_a_login_that_goes_with_the_next_boot_says_so(layerfs: CommandLine, tmp_path: Path) -> None:
    words = ["login", "--offline", "-u", "me", "-p", "secret", "registry.test"]
    with tempfile.TemporaryDirectory(dir="/run", prefix="layerfs-test-") as runtime:
        said = layerfs(*words, environment={"XDG_RUNTIME_DIR": runtime}).stdout
        kept = layerfs(*words, "--authfile", str(tmp_path / "auth.json")).stdout
    assert (
        f"kept in {runtime}/containers/auth.json until the next boot (--authfile FILE, or authfile =" in said
    )
    assert kept.endswith(f"kept in {tmp_path}/auth.json\n")
