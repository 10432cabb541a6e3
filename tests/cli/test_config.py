"""Configuration files: strict, errors name file, key and line; flags beat variables beat files."""

import contextlib
import json
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs import config
from layerfs.cli.manual import EXAMPLE
from layerfs.errors import InvalidSettings
from layerfs.layer.budgets import Budgets
from layerfs.oci import Platform
from layerfs.settings import ROWS, SERVE_ROWS, Address, Settings
from layerfs.store import ImageStorage
from tests.cli.conftest import CommandLine

_FIELDS = {one.name: one for one in msgspec.structs.fields(Settings)}
EVERYTHING = """\
store = "~/layers"
platform = "linux/arm64"
insecure_registries = ["a.b:1", "localhost"]
authfile = "/etc/auth.json"
offline = true
fetch_timeout = 5
tag_ttl = 60
allow_other = true
registries = ["ghcr.io"]

[log]
level = "debug"
json = true
file = "/var/log/x"

[serve]
listen = "10.0.0.5:5000"
repositories = ["docker.io/library/*"]
fetch = true
tls_cert = "/etc/x.crt"
tls_key = "/etc/x.key"
max_connections = 64

[budgets]
max_layer_bytes = 1
max_entries = 2
max_depth = 3
max_ratio = 4
max_pax_bytes = 5
max_record_bytes = 6
max_image_bytes = 7
max_image_entries = 8
"""


def written(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return {"LAYERFS_CONFIG": str(path), "HOME": str(tmp_path)}


def test_a_path_may_have_variables_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "someone")
    monkeypatch.delenv("NOBODY_SETS_THIS", raising=False)

    def store(text: str) -> Path:
        return config.settings_of(written(tmp_path, f'store = "{text}"'), 0).store

    assert store("/local/$USER/layerfs") == Path("/local/someone/layerfs")
    assert store("/local/${USER}s/layerfs") == Path("/local/someones/layerfs")
    assert store("/local/$$USER") == Path("/local/$USER")
    with pytest.raises(InvalidSettings, match=r"line 1: store: .*no variable NOBODY_SETS_THIS"):
        store("/local/$NOBODY_SETS_THIS/layerfs")
    with pytest.raises(InvalidSettings, match=r"line 1: store: .*expected \$NAME"):
        store("/local/$/layerfs")


def test_every_key_has_its_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = config.settings_of(written(tmp_path, EVERYTHING), 0)
    assert found.store == tmp_path / "layers"
    assert found.platform == Platform.parse("linux/arm64")
    assert found.insecure_registries == {"a.b:1", "localhost"}
    assert found.authfile == Path("/etc/auth.json")
    assert (found.offline, found.fetch_timeout, found.allow_other) == (True, 5, True)
    assert (found.tag_ttl, found.registries) == (60, frozenset({"ghcr.io"}))
    assert (found.log_level, found.log_json, found.log_file) == ("debug", True, Path("/var/log/x"))
    budgets = found.budgets
    assert (budgets.max_layer_bytes, budgets.max_entries, budgets.max_depth) == (1, 2, 3)
    assert (budgets.max_ratio, budgets.max_pax_bytes, budgets.max_record_bytes) == (4, 5, 6)
    assert (budgets.max_image_bytes, budgets.max_image_entries) == (7, 8)
    address = Address("10.0.0.5", 5000)
    assert (found.serve.listen, found.serve.repositories) == (address, ("docker.io/library/*",))
    assert (found.serve.tls_cert, found.serve.tls_key) == (Path("/etc/x.crt"), Path("/etc/x.key"))
    assert (found.serve.fetch, found.serve.max_connections) == (True, 64)
    keys = [f"{table}.{key}" if table else key for table, key, _ in config.described()]
    limits = [f"budgets.{field.name}" for field in msgspec.structs.fields(Budgets)]
    rows = (*ROWS.values(), *SERVE_ROWS.values())
    assert sorted(keys) == sorted([*(row.key for row in rows), *limits])


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("x = 1", "line 1: x", "unknown key"),
        ("\nfetch-timeout = 1", "line 2: fetch-timeout", "did you mean fetch_timeout?"),
        ("[log]\n\nlevle = 'info'", "line 3: log.levle", "did you mean log.level?"),
        ("[log]\nlevel = 'loud'", "line 2: log.level", "'loud'"),
        ("[logs]\nlevel = 'info'", "line 1: logs", "unknown key"),
        ("log.level = 'loud'", "line 1: log.level", "'loud'"),
        ("store = 1", "line 1: store", "Expected a string, got an integer"),
        ("store = 'rel'", "line 1: store", "absolute"),
        ("# c\n[budgets]\nmax_depth = 0", "line 3: budgets.max_depth", ">= 1"),
        ("insecure_registries = ['a.b', 1]", "line 1: insecure_registries[1]", "Expected a string"),
        ("insecure_registries = ['a/b']", "line 1: insecure_registries", "no registry"),
        ("platform = 'x'", "line 1: platform", "os/arch"),
        ("fetch_timeout = 0.5", "line 1: fetch_timeout", ">= 1"),
        ("offline = 'yes'", "line 1: offline", "true or false"),
        ("a = ", "line 1", "Invalid value"),
        ("\noffline = true\noffline = true", "line 3", "overwrite"),
        ("\nstore = x\n", "line 2", "Invalid value"),
    ],
)
def test_an_error_names_file_line_and_key(tmp_path: Path, text: str, place: str, problem: str) -> None:
    environ = written(tmp_path, text)
    with pytest.raises(InvalidSettings) as caught:
        config.load(environ)
    assert str(caught.value).startswith(f"{environ['LAYERFS_CONFIG']}{', ' + place if place else ''}: ")
    assert problem in str(caught.value)


def test_what_is_no_text_and_what_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(b"# ok\n# \xff\n")
    with pytest.raises(InvalidSettings, match="line 2: not UTF-8"):
        config.read(path)
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(InvalidSettings, match="longer than"):
        config.read(path)
    with pytest.raises(InvalidSettings, match="Is a directory"):
        config.read(tmp_path)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("config") / "c.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with contextlib.suppress(InvalidSettings):
        config.read(path)


def test_the_example_of_the_manual_is_right(tmp_path: Path) -> None:
    config.settings_of(written(tmp_path, EXAMPLE), 0)


def test_the_users_file_beats_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "system").write_text("fetch_timeout = 5\noffline = true")
    monkeypatch.setattr(config, "SYSTEM_FILE", tmp_path / "system")
    (tmp_path / "layerfs").mkdir()
    (tmp_path / "layerfs/config.toml").write_text("offline = false")
    found = config.settings_of({"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/nowhere"}, 0)
    assert (found.fetch_timeout, found.offline) == (5, False)


def test_a_flag_beats_a_variable_beats_the_file(layerfs: CommandLine, tmp_path: Path) -> None:
    file = written(tmp_path, f'store = "{tmp_path}/by-file"\nplatform = "linux/s390x"\noffline = true')
    environment = {"LAYERFS_CONFIG": file["LAYERFS_CONFIG"], "LAYERFS_STORE": ""}

    def missed(*arguments: str | Path) -> str:
        return layerfs("images", *arguments, environment=environment, code=3).stderr

    assert f"{tmp_path}/by-file: no store there" in missed()
    environment["LAYERFS_STORE"] = str(tmp_path / "by-variable")
    assert f"{tmp_path}/by-variable: no store there" in missed()
    assert f"{tmp_path}/by-flag: no store there" in missed("--store", tmp_path / "by-flag")
    ImageStorage(tmp_path / "by-variable")
    assert "offline" in layerfs("pull", "127.0.0.1:1/a", environment=environment, code=5).stderr


def test_config_check_and_show(layerfs: CommandLine, tmp_path: Path) -> None:
    assert "no configuration file" in layerfs("config", "check").stdout
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text("offline = true\n[log]\nlevel = 'error'\n")
    bad.write_text("on = 1\n")
    assert layerfs("config", "check", good).stdout == f"{good}: ok\n"
    done = layerfs("config", "check", bad, good, code=2)
    assert "bad.toml, line 1: on: unknown key" in done.stderr
    assert done.stdout == f"{good}: ok\n"
    layerfs("config", "check", tmp_path / "gone.toml", code=2)
    assert "line 1: on" in layerfs("--config", bad, "images", code=2).stderr
    assert "no such file" in layerfs("--config", tmp_path / "gone.toml", "images", code=2).stderr
    assert layerfs("--config", good, "config", "show").stdout.splitlines()[0] == f"offline = true  # {good}"
    shown = json.loads(layerfs("--config", good, "config", "show", "--json").stdout)
    assert shown["log.level"] == {"value": "error", "file": str(good)}


def test_the_example_names_every_key_and_sets_none(tmp_path: Path, layerfs: CommandLine) -> None:
    text = layerfs("config", "example").stdout
    untouched, used = tmp_path / "untouched.toml", tmp_path / "used.toml"
    untouched.write_text(text)
    used.write_text(re.sub(r"^#(?=\w)", "", text, flags=re.MULTILINE))
    assert max(map(len, text.splitlines())) <= 100

    [nothing] = config.load({"LAYERFS_CONFIG": str(untouched)})
    [everything] = config.load({"LAYERFS_CONFIG": str(used)})

    assert list(config.values([nothing])) == []
    named = [key for _, key, _ in config.values([everything])]
    assert named == [f"{table}.{key}" if table else key for table, key, _ in config.described()]


def test_what_the_example_says_is_the_default_where_there_is_one(
    tmp_path: Path, layerfs: CommandLine
) -> None:
    text = re.sub(r"^#(?=\w)", "", layerfs("config", "example").stdout, flags=re.MULTILINE)
    path = tmp_path / "config.toml"
    path.write_text(text)

    said = config.settings_of({"LAYERFS_CONFIG": str(path), "HOME": str(tmp_path)}, 0)

    for name in ROWS:
        default = _FIELDS[name].default
        if isinstance(default, bool | str | float):
            assert getattr(said, name) == default, name
    assert said.budgets == Budgets()
    assert (said.serve.fetch, said.serve.max_connections) == (False, 512)
