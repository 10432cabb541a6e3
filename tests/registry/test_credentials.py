"""Where logins come from: the files of podman and docker, their order, helpers."""

import json
import math
import os
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import InvalidSettings
from layerfs.registry.credentials import AuthFile, Credential, helper_program, parse_helper_answer
from layerfs.registry.keychain import Keychain, places
from tests.support.registry_client import quick


def entry(user: str, password: str = "secret") -> dict[str, str]:
    return {"auth": b64encode(f"{user}:{password}".encode()).decode()}


def parsed(**document: Any) -> AuthFile:
    return AuthFile.parse(json.dumps(document).encode(), "file")


# Files


@pytest.mark.parametrize(
    ("keys", "registry", "path", "expected"),
    [
        (["h"], "h", "a/b", "h"),
        (["h", "h/a", "h/a/b", "h/a/b/c"], "h", "a/b", "h/a/b"),
        (["h", "h/a", "h/x"], "h", "a/b", "h/a"),
        (["h", "h/a/bb"], "h", "a/b", "h"),
        (["h/x"], "h", "a/b", None),
        (["h:5000"], "h", "a", None),
        (["https://h"], "h", "a", "https://h"),
        (["http://h/v2/"], "h", "a", "http://h/v2/"),
        (["https://h/v1/", "h"], "h", "a", "h"),
        (["https://evil/h"], "h", "a", None),
        (["ftp://h"], "h", "a", None),
        (["https://index.docker.io/v1/"], "docker.io", "library/a", "https://index.docker.io/v1/"),
        (["https://index.docker.io/v1/", "docker.io"], "docker.io", "library/a", "docker.io"),
        (["index.docker.io", "docker.io/me"], "docker.io", "me/a", "docker.io/me"),
        (["registry-1.docker.io"], "docker.io", "library/a", "registry-1.docker.io"),
        (["https://registry-1.docker.io/v2/"], "docker.io", "library/a", "https://registry-1.docker.io/v2/"),
        ([], "h", "a", None),
    ],
)
def test_the_most_specific_key_counts(
    keys: list[str], registry: str, path: str, expected: str | None
) -> None:
    found = parsed(auths={key: entry(key.replace(":", "_")) for key in keys}).login(registry, path)
    assert (found and found.username) == (expected and expected.replace(":", "_"))


@pytest.mark.parametrize(
    ("json_entry", "expected"),
    [
        (entry("u", "p:q ü"), Credential("file", "u", "p:q ü")),
        ({"auth": b64encode(b"u:p\0\0").decode()}, Credential("file", "u", "p")),
        ({"username": "u", "password": "p"}, Credential("file", "u", "p")),
        ({"identitytoken": "t"} | entry("u"), Credential("file", identity_token="t")),
        ({"registrytoken": "t", "identitytoken": "x"}, Credential("file", registry_token="t")),
        (entry("<token>", "t"), Credential("file", identity_token="t")),
        ({}, None),
        ({"auth": ""}, None),
        ({"email": "x@y"}, None),
    ],
)
def test_every_kind_of_login_is_read(json_entry: dict[str, str], expected: Credential | None) -> None:
    assert parsed(auths={"h": json_entry}).login("h", "a") == expected


def test_an_empty_entry_does_not_hide_a_wider_one() -> None:
    assert parsed(auths={"h/a": {}, "h": entry("u")}).login("h", "a") == Credential("file", "u", "secret")


@given(st.text(st.characters(exclude_characters=":\0", exclude_categories=["Cs"]), min_size=1), st.text())
def test_user_and_password_survive_the_file_and_the_header(user: str, password: str) -> None:
    password = "".join(char for char in password if not 0xD800 <= ord(char) < 0xE000).rstrip("\0")
    if user == "<token>":
        return
    found = parsed(auths={"h": entry(user, password)}).login("h", "a")
    assert found == Credential("file", user, password)
    assert found.basic == f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused(raw: bytes) -> None:
    for legacy in (False, True):
        try:
            AuthFile.parse(raw, "file", legacy=legacy).login("h", "a")
        except InvalidSettings:
            continue


def test_the_legacy_file_holds_logins_alone() -> None:
    raw = json.dumps({"https://h/v1/": entry("u")}).encode()
    assert AuthFile.parse(raw, "file", legacy=True).login("h", "a") == Credential("file", "u", "secret")


# Places


def paths(environment: dict[str, str], **changes: Any) -> list[str]:
    return [str(path) for path, _ in places(quick(environment=environment, **changes), uid=7)]


HOME_PLACES = ["/home/u/.config/containers/auth.json", "/home/u/.docker/config.json", "/home/u/.dockercfg"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ["/run/containers/7/auth.json"]),
        ({"HOME": "/home/u"}, ["/run/containers/7/auth.json", *HOME_PLACES]),
        (
            {"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7"},
            ["/run/user/7/containers/auth.json", *HOME_PLACES],
        ),
        (
            {"HOME": "/home/u", "XDG_CONFIG_HOME": "/c"},
            ["/run/containers/7/auth.json", "/c/containers/auth.json", *HOME_PLACES[1:]],
        ),
        ({"HOME": "/home/u", "XDG_CONFIG_HOME": "relative"}, ["/run/containers/7/auth.json", *HOME_PLACES]),
        ({"HOME": "/home/u", "REGISTRY_AUTH_FILE": "/a.json", "DOCKER_CONFIG": "/d"}, ["/a.json"]),
        ({"HOME": "/home/u", "DOCKER_CONFIG": "/d"}, ["/d/config.json"]),
        ({"CREDENTIALS_DIRECTORY": "/cred"}, ["/cred/auth.json", "/run/containers/7/auth.json"]),
        ({"CREDENTIALS_DIRECTORY": "/cred", "REGISTRY_AUTH_FILE": "/a"}, ["/cred/auth.json", "/a"]),
    ],
)
def test_files_are_read_in_their_documented_order(environment: dict[str, str], expected: list[str]) -> None:
    assert paths(environment) == expected


def test_a_named_file_is_the_only_one() -> None:
    environment = {"HOME": "/home/u", "REGISTRY_AUTH_FILE": "/a", "CREDENTIALS_DIRECTORY": "/c"}
    assert paths(environment, authfile=Path("/named")) == ["/named"]


@pytest.fixture
def home(tmp_path: Path) -> Callable[..., Keychain]:
    """Write files below a home directory, helpers below bin/; return a keychain that knows only these."""

    def make(files: dict[str, Any], helpers: dict[str, str] | None = None, **changes: Any) -> Keychain:
        for name, document in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(document if isinstance(document, str) else json.dumps(document))
        for name, script in (helpers or {}).items():
            path = tmp_path / "bin" / f"docker-credential-{name}"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        environment = {
            "HOME": str(tmp_path),
            "XDG_RUNTIME_DIR": str(tmp_path / "run"),
            "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
        }
        return Keychain(quick(environment=environment, **changes))

    return make


async def test_the_first_file_with_a_login_counts(home: Callable[..., Keychain]) -> None:
    keychain = home(
        {
            "run/containers/auth.json": {"auths": {"other": entry("0")}},
            ".config/containers/auth.json": {"auths": {"h": entry("1")}},
            ".docker/config.json": {"auths": {"h": entry("2"), "h2": entry("2")}},
            ".dockercfg": {"h3": entry("3")},
        }
    )
    found = [(await keychain.find(host, "a")).credential for host in ("h", "h2", "h3", "h4")]
    assert [credential and credential.username for credential in found] == ["1", "2", "3", None]


@pytest.mark.allow_warnings
async def test_a_broken_file_is_named_once_and_the_next_is_read(
    home: Callable[..., Keychain], caplog: pytest.LogCaptureFixture
) -> None:
    keychain = home(
        {"run/containers/auth.json": "{", ".config/containers/auth.json": {"auths": {"h": entry("1")}}}
    )
    notes = [(await keychain.find("h", "a")).note for _ in range(3)]
    assert all(note.startswith("user '1' of ") for note in notes)
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1
    assert "run/containers/auth.json: not a credential file" in warned[0]


@pytest.mark.allow_warnings
@pytest.mark.parametrize("size", [0, (1 << 20) + 1])
async def test_a_file_that_is_none_is_passed_over(home: Callable[..., Keychain], size: int) -> None:
    keychain = home({"run/containers/auth.json": " " * size})
    assert (await keychain.find("h", "a")).credential is None


# Helpers

ANSWER = """test "$1" = get; read -r server; echo "$server" >>"$HOME/asked"
printf '{"ServerURL":"%s","Username":"u","Secret":"s"}' "$server" """
UNKNOWN = "cat >/dev/null; echo 'credentials not found in native keychain'; exit 1"


async def test_a_helper_named_for_the_registry_decides(home: Callable[..., Keychain], tmp_path: Path) -> None:
    config = {"credHelpers": {"h": "good"}, "credsStore": "absent", "auths": {"h": entry("file")}}
    keychain = home({".docker/config.json": config}, {"good": ANSWER})
    for _ in range(3):
        found = await keychain.find("h", "a")
        assert found.credential == Credential("docker-credential-good", "u", "s")
    assert (tmp_path / "asked").read_text() == "h\n"  # the answer is kept for a while
    keychain.forget("h", math.inf)
    await keychain.find("h", "a")
    assert (tmp_path / "asked").read_text() == "h\nh\n"


async def test_what_a_named_helper_does_not_know_nobody_knows(home: Callable[..., Keychain]) -> None:
    config = {"credHelpers": {"h": "empty"}, "auths": {"h": entry("file")}}
    keychain = home({".docker/config.json": config, ".dockercfg": {"h": entry("x")}}, {"empty": UNKNOWN})
    found = await keychain.find("h", "a")
    assert (found.credential, found.note) == (None, "no credentials")


async def test_a_general_helper_comes_before_the_logins_of_its_file(home: Callable[..., Keychain]) -> None:
    config = {"credsStore": "store", "auths": {"h": entry("file")}}
    keychain = home({".docker/config.json": config}, {"store": ANSWER})
    assert (await keychain.find("h", "a")).credential == Credential("docker-credential-store", "u", "s")
    keychain = home({}, {"store": UNKNOWN})
    assert (await keychain.find("h", "a")).credential == Credential(
        keychain.settings.variables["HOME"] + "/.docker/config.json", "file", "secret"
    )


async def test_helpers_know_docker_hub_by_its_old_name(home: Callable[..., Keychain], tmp_path: Path) -> None:
    keychain = home({".docker/config.json": {"credsStore": "store"}}, {"store": ANSWER})
    await keychain.find("docker.io", "library/a")
    assert (tmp_path / "asked").read_text() == "https://index.docker.io/v1/\n"


def test_an_identity_token_of_a_helper_is_known_by_its_user() -> None:
    raw = b'{"ServerURL":"h","Username":"<token>","Secret":"t"}'
    assert parse_helper_answer(raw, "helper") == Credential("helper", identity_token="t")


@pytest.mark.allow_warnings
@pytest.mark.parametrize(
    ("script", "text"),
    [
        pytest.param("exit 3", "failed with status 3", id="fails"),
        pytest.param("cat; echo planted >&2; exit 1", "failed with status 1", id="fails with a text"),
        pytest.param("echo planted", "its answer is not JSON", id="talks nonsense"),
        pytest.param("exec sleep 600", "no answer within 0 s", id="hangs"),
        pytest.param("sleep 600 & exit 0", "no answer within 0 s", id="leaves a child that hangs"),
        pytest.param("exec yes planted", "more than 1048576 bytes", id="talks without end"),
        pytest.param("kill -9 $$", "failed with status -9", id="is killed"),
    ],
)
async def test_a_helper_that_fails_is_named_and_done_without(
    home: Callable[..., Keychain], caplog: pytest.LogCaptureFixture, script: str, text: str
) -> None:
    patience = 0.2 if "sleep" in script else 60
    keychain = home(
        {".docker/config.json": {"credHelpers": {"h": "bad"}}}, {"bad": script}, helper_timeout=patience
    )
    found = await keychain.find("h", "a")
    assert found.credential is None
    assert text in found.note
    assert text in caplog.text
    assert "planted" not in caplog.text + found.note


@pytest.mark.allow_warnings
@pytest.mark.parametrize("name", ["absent", "../bad", "a b", "", "bad;rm"])
async def test_a_helper_that_is_not_there_or_could_be_a_path_is_not_run(
    home: Callable[..., Keychain], name: str
) -> None:
    keychain = home({".docker/config.json": {"credHelpers": {"h": name or "/"}}}, {"bad": ANSWER})
    assert (await keychain.find("h", "a")).credential is None


@given(st.text())
def test_the_name_of_a_helper_is_never_a_path(name: str) -> None:
    try:
        program = helper_program(name)
    except InvalidSettings:
        return
    assert os.path.basename(program) == program
    assert program.isascii()


@pytest.mark.allow_warnings
async def test_a_place_that_cannot_be_read_is_passed_over(
    home: Callable[..., Keychain], tmp_path: Path
) -> None:
    keychain = home({".docker/config.json": {"auths": {"h": entry("u")}}})
    (tmp_path / "run/containers/auth.json").mkdir(parents=True)
    assert (await keychain.find("h", "a")).credential == Credential(
        f"{tmp_path}/.docker/config.json", "u", "secret"
    )
