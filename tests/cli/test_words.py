"""Help and manual pages: of one source, complete, and of use."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

import layerfs.cli
from layerfs.cli.app import app
from layerfs.cli.helping import GROUPS, summary
from layerfs.cli.mountoptions import known
from layerfs.layer.budgets import Budgets
from tests.cli.conftest import CommandLine

_SOURCE = Path(layerfs.cli.__file__).parents[1]


def verbs() -> list[tuple[str, Any]]:
    app.load()
    return list(_below(app))


def _below(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _below(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def test_every_verb_and_option_explains_itself_with_an_example() -> None:
    for name, command in verbs():
        assert command.help, name
        assert command.epilog.startswith("Example: "), name
        assert name.split()[-1] in command.epilog or name == "umount", name
        for param in command.params:
            assert param.name == "help" or param.help, f"{name}: {param.name}"


def test_the_verbs_stand_in_groups_each_with_a_sentence_on_one_line(layerfs: CommandLine) -> None:
    app.load()
    top = dict(app.commands)
    shown = [name for name, command in top.items() if not command.hidden]
    assert sorted(shown) == sorted(name for names in GROUPS.values() for name in names)
    lines = layerfs("--help", environment={"COLUMNS": "80"}).stdout.splitlines()
    for heading, names in GROUPS.items():
        at = lines.index(f"{heading}:") + 1
        assert [line.split()[0] for line in lines[at : at + len(names)]] == list(names)
        assert lines[at + len(names)] == ""
        for line, name in zip(lines[at:], names, strict=False):
            assert line.endswith(summary(top[name].help or "")), name


def help_of(name: str, command: Any, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what ``--help`` of a verb prints on a terminal that is *width* columns wide."""
    monkeypatch.setenv("COLUMNS", str(width))
    found: str = command.get_help(click.Context(command, info_name=f"layerfs {name}".rstrip()))
    return found


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_help_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    app.load()
    top: Any = app
    for name, command in [("", top), ("config", top.commands["config"]), *verbs()]:
        shown = help_of(name, command, width, monkeypatch)
        long = [line for line in shown.splitlines() if len(line) > min(width, 80)]
        if width < 80:  # a single word may be longer, a path for instance, and an example breaks behind words
            long = [line for line in long if len(line.removesuffix(" \\").split()) > 1 and "$(" not in line]
        assert long == [], name


def test_help_looks_the_same_with_every_click(layerfs: CommandLine) -> None:
    for name, command in verbs():
        for param in command.params:
            assert param.metavar or getattr(param, "is_flag", False), f"{name}: {param.name}"
    shown = layerfs("rm", "--help").stdout
    assert shown.splitlines()[0].endswith(" rm [OPTION]... [IMAGE]...")
    assert "\n  [IMAGE]...  Tags, digests or image ids.\n" in shown
    usage = layerfs("pull", code=2).stderr.splitlines()[0]
    assert usage.endswith(" pull [OPTION]... REFERENCE...")


def test_an_example_that_is_broken_into_lines_is_the_same_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, command in verbs():
        for width in (40, 80):
            example = help_of(name, command, width, monkeypatch).rpartition("Example:")[2]
            words = example.replace("\\\n", " ").split()
            assert " ".join(words) == command.epilog.removeprefix("Example: "), name


def test_every_verb_that_lists_or_shows_can_print_json() -> None:
    listing = {
        "images", "history", "tags", "tree", "status", "df", "config show", "pull", "import", "push",
        "verify", "rm", "gc", "lease ls", "changes", "doctor", "events", "serve", "config check", "umount",
    }  # fmt: skip
    for name, command in verbs():
        has = any("--json" in param.opts for param in command.params)
        assert has == (name in listing), name


@pytest.mark.parametrize("page", ["layerfs", "layerfs.toml", "mount.layerfs"])
def test_the_manual_pages_are_good_roff_and_name_everything(layerfs: CommandLine, page: str) -> None:
    source = layerfs("man", page).stdout
    groff = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww"], input=source, capture_output=True, text=True, check=True
    )
    assert groff.stderr == ""
    if page == "layerfs":
        for name, command in verbs():
            if command.hidden:
                continue
            assert f".SS {name}" in source
            for param in command.params:
                for flag in param.opts if param.param_type_name == "option" else ():
                    assert flag.replace("-", "\\-") in source, f"{name} {flag}"


def test_the_manual_has_every_word_of_mount_and_every_default_of_a_budget(layerfs: CommandLine) -> None:
    page = layerfs("man", "layerfs").stdout.partition(".SH MOUNT OPTIONS")[2].partition(".SH")[0]
    for word in known().split(", "):
        assert f"\\fB{word}" in page
    toml = layerfs("man", "layerfs.toml").stdout
    for name, value in msgspec.structs.asdict(Budgets()).items():
        assert re.search(rf"\\fB{name}\\fR\n.*; {value:_} unless", toml), name


_NAMED = re.compile(r"\blayerfs ([a-z]+)(?= [A-Z`)/<-]|[`)]|$| says| lists| fetches)")


def test_every_command_that_a_message_names_exists() -> None:
    """Advice that names a command which is not there is worse than none."""
    known = {name.split()[0] for name, _ in verbs()} | {"and", "reads", "made"}  # these are English
    named = {
        (str(path.relative_to(_SOURCE)), word)
        for path in _SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for word in _NAMED.findall(node.value)
    }

    assert {word for _, word in named} > {"pull", "login", "umount", "df"}
    assert {(path, word) for path, word in named if word not in known} == set()
