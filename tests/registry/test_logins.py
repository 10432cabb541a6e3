"""Writing logins: podman's format, nothing else in the file changes, nobody else can read it."""

import json
import stat
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import Denied, InvalidSettings
from layerfs.registry.client import RegistryClient
from layerfs.registry.credentials import AuthFile, Credential
from layerfs.registry.logins import login_file, remove_login, save_login
from tests.support.faulty_registry import PASSWORD, USER, FaultyRegistry
from tests.support.registry_client import quick


def found(path: Path, registry: str) -> Credential | None:
    return AuthFile.parse(path.read_bytes(), "file").login(registry, "a")


def test_a_login_is_found_again_until_it_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "auth.json"
    save_login(path, "h:5000", "u", "p:q ü")
    save_login(path, "other", "v", "w")
    assert found(path, "h:5000") == Credential("file", "u", "p:q ü")
    save_login(path, "h:5000", "u2", "p2")
    assert found(path, "h:5000") == Credential("file", "u2", "p2")
    assert remove_login(path, "h:5000")
    assert found(path, "h:5000") is None
    assert found(path, "other") == Credential("file", "v", "w")
    assert not remove_login(path, "h:5000")
    assert not remove_login(tmp_path / "absent", "h")


def test_nobody_else_may_read_the_file_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "auth.json"
    for password in ("1", "2"):
        save_login(path, "h", "u", password)
        path.chmod(0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


@given(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=4))
def test_what_else_stands_in_the_file_stays(
    tmp_path_factory: pytest.TempPathFactory, others: dict[str, object]
) -> None:
    path = tmp_path_factory.mktemp("logins") / "config.json"
    before = {
        name: value for name, value in others.items() if name not in ("auths", "credHelpers", "credsStore")
    }
    before |= {"credHelpers": {"x": "y"}, "auths": {"other": {"identitytoken": "t"}}}
    path.write_text(json.dumps(before))
    save_login(path, "h", "u", "p")
    remove_login(path, "h")
    assert json.loads(path.read_text()) == before


def test_a_symlink_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    save_login(tmp_path / "link.json", "h", "u", "p")
    assert (tmp_path / "link.json").is_symlink()
    assert found(tmp_path / "real.json", "h") == Credential("file", "u", "p")


def test_the_entry_that_docker_wrote_is_removed_too(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    auth = b64encode(b"u:p").decode()
    path.write_text(json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": auth}}}))
    assert remove_login(path, "docker.io")
    assert found(path, "docker.io") is None


@pytest.mark.parametrize("content", ["{", "[]", '{"auths": []}'])
def test_a_file_that_is_none_of_ours_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "auth.json"
    path.write_text(content)
    with pytest.raises(InvalidSettings, match=r"auth\.json: not a credential file"):
        save_login(path, "h", "u", "p")
    assert path.read_text() == content


@pytest.mark.parametrize("user", ["", "a:b"])
def test_what_cannot_be_a_user_is_refused(tmp_path: Path, user: str) -> None:
    with pytest.raises(InvalidSettings, match="not a user name"):
        save_login(tmp_path / "auth.json", "h", user, "p")


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "file" / "auth.json", tmp_path / "directory"):
        with pytest.raises(InvalidSettings, match="cannot be"):
            save_login(path, "h", "u", "p")
    assert list((tmp_path / "directory").iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "auth.json"
    save_login(path, "h", "u", "p")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InvalidSettings, match=r"auth\.json: cannot be written: No space left"):
        save_login(path, "h", "u", "new")
    assert found(path, "h") == Credential("file", "u", "p")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (
            {"CREDENTIALS_DIRECTORY": "/c", "XDG_RUNTIME_DIR": "/run/user/7"},
            "/run/user/7/containers/auth.json",
        ),
        ({"REGISTRY_AUTH_FILE": "/a", "CREDENTIALS_DIRECTORY": "/c"}, "/a"),
    ],
)
def test_logins_go_to_the_first_file_that_is_ours(environment: dict[str, str], expected: str) -> None:
    assert str(login_file(quick(environment=environment))) == expected


async def test_a_login_is_checked_with_the_registry(faulty: FaultyRegistry, tmp_path: Path) -> None:
    faulty.faults.auth = "bearer"
    faulty.faults.anonymous = False
    settings = quick(authfile=tmp_path / "auth.json")
    async with RegistryClient(settings) as client:
        with pytest.raises(Denied, match="no credentials"):
            await client.check_login(faulty.host)
        save_login(tmp_path / "auth.json", faulty.host, USER, PASSWORD)
        await client.check_login(faulty.host)
    assert faulty.lines() == ["GET /v2/ 401", "GET /token 401", "GET /token 200", "GET /v2/ 200"]
    assert "scope" not in faulty.asked[-2].query
