"""One row of the table says everything about a setting: file, option, variable, word of ``-o``, manual."""

from pathlib import Path
from typing import Any

import pytest

from layerfs import config
from layerfs.cli import mountoptions, options
from layerfs.cli.app import app
from layerfs.cli.manual import man
from layerfs.errors import InvalidSettings, UsageError
from layerfs.oci import Platform
from layerfs.settings import FLAG, ROWS, Settings
from layerfs.settings.kinds import Amount

# For each field that has a row: what a file says, what an option gets, and what both mean.
SAID: dict[str, tuple[str, Any, Any]] = {
    "registries_conf": ('"/r.conf"', None, Path("/r.conf")),
    "hosts_dir": ('"/certs.d"', None, Path("/certs.d")),
    "mirror_only": ("true", None, True),
    "forward_credentials": ('["a.b:1", "c.d"]', None, frozenset({"a.b:1", "c.d"})),
    "store": ('"/s"', Path("/s"), Path("/s")),
    "store_owner": ("1234", "1234", 1234),
    "share_store": ("true", True, True),
    "platform": ('"linux/arm64"', "linux/arm64", Platform.parse("linux/arm64")),
    "insecure_registries": ('["a.b:1", "c.d"]', ["a.b:1", "c.d"], frozenset({"a.b:1", "c.d"})),
    "authfile": ('"/a"', Path("/a"), Path("/a")),
    "offline": ("true", True, True),
    "daemon": ("false", False, False),
    "fetch_timeout": ("7", 7.0, 7.0),
    "tag_ttl": ("8", 8.0, 8.0),
    "streams": ("8", None, 8),
    "max_bandwidth": ('"20MB/s"', "20MB", 20_000_000),
    "allow_other": ("true", True, True),
    "registries": ('["a.b:1", "c.d"]', "a.b:1,c.d", frozenset({"a.b:1", "c.d"})),
    "reachable_networks": ('["10.0.0.0/8"]', None, frozenset({"10.0.0.0/8"})),
    "max_size": ('"20GiB"', "20GiB", Amount(20 << 30)),
    "min_free": ('"5%"', "5%", Amount(percent=5)),
    "pin": ('["a.b/c:1", "a.b/d/*"]', None, ("a.b/c:1", "a.b/d/*")),
    "evict": ('"blobs"', None, "blobs"),
    "lazy": ('"never"', "never", "never"),
    "verify_whole": ('["a.b/*"]', None, ("a.b/*",)),
    "background": ('"always"', None, "always"),
    "poll": ("false", False, False),
    "log_level": ('"debug"', "debug", "debug"),
    "log_json": ("true", True, True),
    "log_file": ('"/l"', Path("/l"), Path("/l")),
}
_WORDS = {
    "platform": "linux/arm64",
    "registries": "a.b:1+c.d",
    "fetch_timeout": "7",
    "tag_ttl": "8",
    "max_size": "20GiB",
    "min_free": "5%",
    "max_bandwidth": "20MB",
}


@pytest.fixture
def nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.toml").touch()
    monkeypatch.setenv("LAYERFS_CONFIG", str(tmp_path / "empty.toml"))
    monkeypatch.delenv("LAYERFS_STORE", raising=False)


def test_every_row_is_tried_here() -> None:
    assert SAID.keys() == ROWS.keys()


@pytest.mark.parametrize("name", ROWS)
def test_a_file_says_it(name: str, tmp_path: Path) -> None:
    written, _, meant = SAID[name]
    path = tmp_path / "c.toml"
    path.write_text(f"{ROWS[name].key} = {written}\n")

    assert getattr(config.settings_of({"LAYERFS_CONFIG": str(path), "HOME": "/h"}, 1000), name) == meant


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.flags])
@pytest.mark.usefixtures("nothing_configured")
def test_an_option_says_it(name: str) -> None:
    seen: list[Settings] = []

    @options.configured(name)
    def verb(settings: Settings) -> None:
        seen.append(settings)

    verb(**{name: SAID[name][1]})
    verb(**{name: None})

    assert getattr(seen[0], name) == SAID[name][2]
    assert getattr(seen[1], name) != SAID[name][2]


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.word])
def test_a_word_says_it(name: str) -> None:
    if ROWS[name].kind is FLAG:
        assert mountoptions.parse([name]).settings == {name: True}
        assert mountoptions.parse([f"{name},no{name}"]).settings == {name: False}
    else:
        word = _WORDS.get(name, str(SAID[name][1]))
        assert mountoptions.parse([f"{name}={word}"]).settings == {name: SAID[name][2]}


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.word])
@pytest.mark.parametrize("form", ["{}=", "no{}=1", "no{}x"])
def test_a_word_in_another_form_is_refused(name: str, form: str) -> None:
    if name == "registries" and form == "{}=":
        assert mountoptions.parse(["registries="]).settings == {"registries": frozenset()}
        return
    with pytest.raises(UsageError):
        mountoptions.parse([form.format(name)])


@pytest.mark.parametrize("text", ["0", "nan", "-1", "soon"])
def test_seconds_are_a_number_of_at_least_one(text: str) -> None:
    with pytest.raises(InvalidSettings, match="seconds"):
        mountoptions.parse([f"fetch_timeout={text}"])


@pytest.mark.parametrize("text", ["0", "63KiB", "50%", "fast", "20MB/h"])
def test_a_rate_is_bytes_a_second(text: str) -> None:
    with pytest.raises(InvalidSettings, match="max_bandwidth"):
        mountoptions.parse([f"max_bandwidth={text}"])


@pytest.mark.usefixtures("nothing_configured")
def test_a_word_beats_what_a_variable_may_say_and_an_option_of_the_mount_beats_it() -> None:
    seen: list[Settings] = []

    @options.configured("offline", "fetch_timeout", options.WORDS)
    def verb(settings: Settings) -> None:
        seen.append(settings)

    words = ["offline,fetch_timeout=5", "noatime"]
    verb(offline=False, fetch_timeout=9.0, mount_options=words)
    verb(offline=None, fetch_timeout=None, mount_options=words)

    assert (seen[0].offline, seen[0].fetch_timeout, seen[0].mount_options) == (True, 9.0, ("noatime",))
    assert (seen[1].offline, seen[1].fetch_timeout) == (True, 5.0)


def test_the_manual_and_the_help_of_mount_name_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    man("layerfs.toml")
    keys = capsys.readouterr().out
    app.load()
    root: Any = app
    taken = {flag for param in root.commands["mount"].params for flag in (*param.opts, *param.secondary_opts)}
    known = mountoptions.known()

    for name, row in ROWS.items():
        assert f"\\fB{row.key.rpartition('.')[2]}\\fR" in keys, name
        if name != "daemon":  # an option of commands alone: a mount is one
            assert set(row.flags.split("/")) - {""} <= taken, name
        assert (name in known) == row.word, name
