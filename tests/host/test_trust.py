"""What is read counts only if nobody but this user and root can change it."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from layerfs import config
from layerfs.errors import InvalidSettings
from layerfs.host.trust import changeable, distrust, way
from layerfs.registry import RegistrySettings
from layerfs.registry.keychain import registries_with_logins
from layerfs.registry.logins import save_login

pytestmark = pytest.mark.needs_root

NEIGHBOUR = 65534
LOGINS = '{"auths": {"registry.example": {"auth": "bWU6c2VjcmV0"}}}'


def theirs(path: Path) -> None:
    os.chown(path, NEIGHBOUR, NEIGHBOUR)


def everybodys(path: Path) -> None:
    path.chmod(0o666)


def a_groups(path: Path) -> None:
    os.chown(path, 0, 12345)
    path.chmod(0o664)


PLANTED = [
    pytest.param(theirs, "belongs to user 65534 (expected root; chown it)", id="of another user"),
    pytest.param(everybodys, "others can write to it, mode 0666 (expected 0644;", id="writable by all"),
    pytest.param(a_groups, "others can write to it, mode 0664 (expected 0644;", id="writable by a group"),
]


@pytest.mark.parametrize(("change", "words"), PLANTED)
def test_planted_configuration_file(tmp_path: Path, change: Callable[[Path], None], words: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text("offline = true\n")
    assert config.settings_of({"LAYERFS_CONFIG": str(path), "HOME": "/h"}, 0).offline
    change(path)

    with pytest.raises(InvalidSettings) as caught:
        config.settings_of({"LAYERFS_CONFIG": str(path), "HOME": "/h"}, 0)

    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("change", "words"), PLANTED)
@pytest.mark.allow_warnings
def test_planted_authfile(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / "auth.json"
    path.write_text(LOGINS)
    settings = RegistrySettings(authfile=path)
    assert registries_with_logins(settings) == {"registry.example"}
    change(path)

    assert registries_with_logins(settings) == frozenset()
    assert words in caplog.text
    with pytest.raises(InvalidSettings, match="cannot be read: ") as caught:
        save_login(path, "other.example", "me", "secret")
    assert words in str(caught.value)
    assert path.read_text() == LOGINS


def test_a_private_group_is_nobody_else(tmp_path: Path) -> None:
    """As distributions make them: root's group root, a user's group of the same name, with no members."""
    path = tmp_path / "file"
    path.touch(0o600)
    path.chmod(0o664)
    assert distrust(path.stat()) is None


def test_devices_are_no_files_of_others() -> None:
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert distrust(os.stat("/dev/null")) is None


def test_the_way_is_the_one_that_the_kernel_goes(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/up").symlink_to("../a/b")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    passed = [place for place, _ in way(f"{tmp_path}/link/./up/../missing/more")]

    below = [place.removeprefix(str(tmp_path)) for place in passed if place.startswith(f"{tmp_path}/")]
    assert below == ["/link", "/a", "/a/up", "/a", "/a/b"]


def test_links_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        changeable(str(tmp_path / "one/store"), frozenset({0}))
