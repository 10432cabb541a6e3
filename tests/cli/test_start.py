"""What a command imports before it does anything: no more than it needs, for it delays the first answer."""

import importlib
import subprocess
import sys
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
