"""What a command imports before it does anything: no more than it needs, for it delays the first answer."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from layerfs.cli.app import VERBS, app, load_verbs

_MODULES = "print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def imported_by(*statements: str) -> set[str]:
    """Run *statements* in a fresh interpreter and return the top-level modules that it has then."""
    code = "\n".join(("import sys", *statements, _MODULES))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_mount_that_asks_no_registry_imports_no_http() -> None:
    found = imported_by("import layerfs.app, layerfs.cli.mount, layerfs.fuse.session, layerfs.view.tree")

    assert "pyfuse3" in found
    assert not found & {"httpx", "httpcore", "rich"}


def test_help_and_completion_import_no_machinery() -> None:
    found = imported_by("from layerfs.cli.app import load_verbs", "load_verbs()")

    assert "typer" in found
    assert not found & {"trio", "pyfuse3", "httpx", "rich"}


@pytest.mark.parametrize(
    "words",
    ["images --json", "df", "lowerdir --format json a/b", "tree --limit 3 a/b"],
)
def test_a_verb_with_plain_words_imports_no_validation(words: str, tmp_path: Path) -> None:
    code = "import sys; from layerfs.cli import main\ntry: main()\nexcept SystemExit: print(*sys.modules)"
    argv, store = words.split(), str(tmp_path / "store")
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        capture_output=True, text=True, check=True, env={**os.environ, "LAYERFS_STORE": store},
    )  # fmt: skip

    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "typer" in loaded
    assert not loaded & {"pydantic", "pydantic_core", "rich", "pyfuse3"}


def test_every_verb_is_in_the_module_that_the_table_says() -> None:
    load_verbs()
    commands: list[Any] = [*app.registered_commands, *app.registered_groups]
    names = {command.name or command.callback.__name__ for command in commands} - {"completion"}
    assert names == set(VERBS)
    for name, module in VERBS.items():
        registered = vars(importlib.import_module(f"layerfs.cli.{module}"))
        assert {name, f"{name}_", f"{name}_app"} & registered.keys(), name


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_verb_alone_is_as_good_as_with_all_others(verb: str) -> None:
    called = (
        "from layerfs.cli.app import app, load_verbs",
        f"load_verbs({verb!r})",
        "import typer",
        f"assert {verb!r} in typer.main.get_command(app).commands",
    )
    assert "typer" in imported_by(*called)
