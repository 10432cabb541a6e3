"""Values of options and arguments: what is typed has the annotated type, or an error says what may be."""

from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest

from layerfs.cli import takes


def verb(
    names: Annotated[list[str] | None, takes.argument(metavar="NAME")] = None,
    *,
    file: Annotated[Path | None, takes.option("--file", metavar="FILE", envvar="TAKES_FILE")] = None,
    flag: Annotated[bool | None, takes.option("--on/--off", envvar="TAKES_FLAG")] = None,
    form: Annotated[Literal["table", "json"], takes.option("--format", metavar="FORM")] = "table",
    number: Annotated[int | None, takes.option("--number", metavar="N", least=2)] = None,
    seconds: Annotated[float | None, takes.option("--seconds", metavar="S", least=1)] = None,
    words: Annotated[list[str] | None, takes.option("-o", metavar="WORD")] = None,
) -> None:
    """Do nothing."""


def read(*typed: str) -> dict[str, Any]:
    """Return what *verb* would be called with."""
    command = click.Command("verb", params=takes.parameters_of(verb))
    with command.make_context("verb", list(typed)) as context:
        return context.params


_UNSAID: dict[str, Any] = {
    "names": [], "file": None, "flag": None, "form": "table", "number": None, "seconds": None, "words": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], {}),
        (["a", "b"], {"names": ["a", "b"]}),
        (["--file", "/nonexistent/x"], {"file": Path("/nonexistent/x")}),
        (["--on"], {"flag": True}),
        (["--off"], {"flag": False}),
        (["--format", "json"], {"form": "json"}),
        (["--number=2"], {"number": 2}),
        (["--seconds", "1.5"], {"seconds": 1.5}),
        (["-o", "a,b", "-oc"], {"words": ["a,b", "c"]}),
    ],
)
def test_a_value_has_the_type_that_the_signature_says(typed: list[str], said: dict[str, Any]) -> None:
    assert read(*typed) == _UNSAID | said


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--format", "yaml"], "'--format': 'yaml' is not one of 'table', 'json'."),
        (["--number", "1"], "'--number': 1 is not in the range x>=2."),
        (["--seconds", "soon"], "'--seconds': 'soon' is not a valid float range."),
    ],
)
def test_another_value_is_refused_and_the_error_says_what_may_be(typed: list[str], told: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        read(*typed)

    assert caught.value.format_message() == f"Invalid value for {told}"


def test_a_variable_stands_for_an_option_and_an_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAKES_FILE", "x")
    assert read()["file"] == Path("x")

    monkeypatch.setenv("TAKES_FLAG", "maybe")
    with pytest.raises(click.BadParameter) as caught:
        read()
    assert "'--on' (env var: 'TAKES_FLAG'): 'maybe' is not" in caught.value.format_message()
