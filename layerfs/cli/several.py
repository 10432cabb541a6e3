"""Verbs that take several arguments: one that fails does not keep the others from what they are for."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import click
import msgspec

from layerfs.cli.failures import exit_code, report
from layerfs.errors import LayerfsError, OutputLost

T = TypeVar("T")


class Unmet(msgspec.Struct, frozen=True):
    """What kept one argument from its result."""

    argument: str
    """As it was given: it may be no reference."""
    error: LayerfsError

    def to_json(self, key: str = "reference") -> dict[str, object]:
        """Return what ``--json`` prints, as ``status.json`` does; *key* says what the argument is."""
        asked = {"asked": self.error.asked_lines} if self.error.asked else {}
        return {key: self.argument, "error": type(self.error).__name__, "message": self.error.text, **asked}


async def each(
    arguments: Iterable[str],
    work: Callable[[str], Awaitable[T]],
    complain: Callable[[LayerfsError], object] = report,
) -> list[T | Unmet]:
    """Return what *work* makes of each argument; an error is printed, and stands for its result."""
    results: list[T | Unmet] = []
    for argument in arguments:
        try:
            results.append(await work(argument))
        except OutputLost:  # nobody would hear of the others
            raise
        except LayerfsError as error:
            complain(error)
            results.append(Unmet(argument, error))
    return results


def code_of(results: Iterable[object]) -> int:
    """Return the exit code of the first error among *results*; 0 if there is none."""
    return next((exit_code(one.error) for one in results if isinstance(one, Unmet)), 0)


def end(results: Iterable[object]) -> None:
    """End the command with the exit code of the first error among *results*, if there is one."""
    if code := code_of(results):
        raise click.exceptions.Exit(code)
