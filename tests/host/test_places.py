"""The XDG base directory specification, rule by rule."""

from pathlib import Path

import pytest

from layerfs.cli import logs
from layerfs.config import default_store, places
from layerfs.host.places import Kind, xdg

KINDS: list[tuple[Kind, str, str]] = [
    ("config", "XDG_CONFIG_HOME", ".config"),
    ("data", "XDG_DATA_HOME", ".local/share"),
    ("state", "XDG_STATE_HOME", ".local/state"),
]


@pytest.mark.parametrize(("kind", "variable", "below"), KINDS)
def test_the_variable_beats_the_home_directory(kind: Kind, variable: str, below: str) -> None:
    assert xdg({variable: "/base", "HOME": "/home/u"}, kind) == Path("/base")
    assert xdg({variable: "/base"}, kind) == Path("/base")
    assert xdg({"HOME": "/home/u"}, kind) == Path("/home/u", below)


@pytest.mark.parametrize(("kind", "variable", "below"), KINDS)
@pytest.mark.parametrize("ignored", ["", "relative/path", "~/base"])
def test_what_is_not_absolute_is_ignored(kind: Kind, variable: str, below: str, ignored: str) -> None:
    assert xdg({variable: ignored, "HOME": "/home/u"}, kind) == Path("/home/u", below)
    assert xdg({variable: ignored}, kind) is None


def test_store_and_configuration_are_looked_for_there() -> None:
    environ = {"XDG_DATA_HOME": "data", "XDG_CONFIG_HOME": "/c", "HOME": "/home/u"}

    assert default_store(environ, 1000) == Path("/home/u/.local/share/layerfs")
    assert places(environ)[-1] == Path("/c/layerfs/config.toml")
    assert places({})[-1] == Path("/etc/layerfs/config.toml")


def test_a_daemon_of_a_plain_user_logs_there() -> None:
    assert logs.default_log_file({"XDG_STATE_HOME": "/s"}, 1000) == Path("/s/layerfs/layerfs.log")
    assert logs.default_log_file({"HOME": "/home/u"}, 1000) == Path(
        "/home/u/.local/state/layerfs/layerfs.log"
    )
