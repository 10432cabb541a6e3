"""The values of options and arguments are those that Typer reads, by a shorter way: `layerfs.cli.values`."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from typer._coercion import build_runtime_param

from layerfs.cli.app import app, load_verbs
from layerfs.cli.values import PlainParameter

_TYPED = ("", "0", "7", "-1", "1.5", "1e3", " 2", "٣", "9" * 20, "table", "JSON", "json", "layers", "debug",
          "/", "/nonexistent/file", "true", "a\tb", "\udcff")  # fmt: skip
"""What somebody may type behind any option."""
_PRESET = (True, False)
"""What flags are without being typed."""


def _commands(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        yield from _commands(command) if hasattr(command, "commands") else [command]


@cache
def _root() -> Any:
    load_verbs()
    return typer.main.get_command(app)


@cache
def _parameters() -> dict[str, Any]:
    """Return a parameter of each kind that any verb has; two are of one kind if the same values are right."""
    root = _root()
    found = [*root.params, *(one for command in _commands(root) for one in command.params)]
    return {_kind(one): one for one in found if hasattr(one, "type_descriptor")}


def _kind(parameter: Any) -> str:
    about = parameter.type_descriptor.parameter_info
    limits = [about.min, about.max, about.exists, about.readable]
    return f"{parameter.type_descriptor.annotation} {limits} {parameter.multiple} {parameter.nargs}"


def _outcome(runtime: Any, parameter: Any, value: Any) -> tuple[type, Any]:
    """Return the type and the value, or the class and the text of the error."""
    context = typer.Context(_root())
    try:
        read = runtime.coerce(value, param=parameter, ctx=context)
    except typer.BadParameter as exc:
        return type(exc), exc.format_message()
    return type(read), read


@pytest.mark.parametrize("name", sorted(_parameters()))
def test_each_value_means_what_it_means_to_typer(name: str) -> None:
    parameter = _parameters()[name]
    ours, typers = parameter.get_runtime_param(), build_runtime_param(parameter.type_descriptor)
    assert isinstance(ours, PlainParameter)
    several = parameter.multiple or parameter.nargs == -1
    if parameter.type_descriptor.annotation is bool:
        values: list[Any] = [*_PRESET, *_TYPED, None]
    elif several:
        values = [*((one,) for one in _TYPED), _TYPED[:4], (), None]
    else:
        values = [*_TYPED, None]

    differing = {
        repr(value): found
        for value in values
        if (found := (_outcome(ours, parameter, value), _outcome(typers, parameter, value)))[0] != found[1]
    }
    assert differing == {}


def test_a_path_that_must_be_readable_is_asked_of_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = next(one for one in _root().params if one.name == "config_file")
    for name in ("file", ".", "missing"):
        assert _outcome(config.get_runtime_param(), config, str(tmp_path / name)) == (
            type(tmp_path),
            tmp_path / name,
        )
