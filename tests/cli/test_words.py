"""Help and manual pages: of one source, complete, and of use."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import layerfs.cli
from layerfs.cli.app import VERBATIM, app, load_verbs
from tests.cli.conftest import CommandLine

_SOURCE = Path(layerfs.cli.__file__).parents[1]


def verbs() -> list[tuple[str, Any]]:
    load_verbs()
    return list(_below(typer.main.get_command(app)))


def _below(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _below(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def test_every_verb_and_option_explains_itself_with_an_example() -> None:
    for name, command in verbs():
        assert command.help, name
        assert command.epilog.startswith(f"{VERBATIM}Example: "), name
        assert name.split()[-1] in command.epilog or name == "umount", name
        for param in command.params:
            assert param.name == "help" or param.help, f"{name}: {param.name}"


def test_every_verb_that_lists_or_shows_can_print_json() -> None:
    listing = {
        "images", "history", "tags", "tree", "status", "df", "config show", "pull", "import", "verify", "rm",
        "gc", "lease ls",
    }  # fmt: skip
    for name, command in verbs():
        has = any("--json" in param.opts for param in command.params)
        assert has == (name in listing), name


@pytest.mark.parametrize("page", ["layerfs", "layerfs.toml"])
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
