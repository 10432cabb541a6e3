"""What a verb takes, as its signature says it: annotated parameters become options and arguments of Click."""

from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import click
import msgspec

_RANGES: Final = {int: click.IntRange, float: click.FloatRange}
_REQUIRED: Final = object()
_SAID: Final = "parameters"


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a verb. inspect.Parameter says the same, and takes long to import."""

    name: str
    annotation: Any
    default: Any = _REQUIRED
    """What the verb gets if nothing is said; by default something has to be."""


class Taken(msgspec.Struct, frozen=True):
    """An option or argument, without what the annotation and the default of the parameter say of it."""

    flags: tuple[str, ...]
    """How an option is written, ``--on/--off`` for instance; an argument has none."""
    least: int | None
    """The smallest number."""
    about: dict[str, Any]
    """What else Click is told."""


def option(*flags: str, least: int | None = None, **about: Any) -> Taken:
    """Say that a parameter is an option; *about* is for `click.Option`."""
    return Taken(flags, least, about)


def argument(**about: Any) -> Taken:
    """Say that a parameter is an argument; *about* is for `click.Argument`."""
    return Taken((), None, about)


def signature(verb: Callable[..., None]) -> list[Parameter]:
    """Return the parameters of a function, in order; those that it is `said_to_take`, if there are such."""
    said: list[Parameter] | None = vars(verb).get(_SAID)
    if said is not None:
        return said
    function: Any = verb
    code, hints = function.__code__, get_type_hints(verb, include_extras=True)
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    positional, by_position = names[: code.co_argcount], function.__defaults__ or ()
    defaults = dict(zip(reversed(positional), reversed(by_position), strict=False))
    defaults |= function.__kwdefaults__ or {}
    return [Parameter(name, hints[name], defaults.get(name, _REQUIRED)) for name in names]


def said_to_take(verb: Callable[..., None], parameters: list[Parameter]) -> None:
    """Say what a function takes whose own signature does not: one that hands on what it is given."""
    vars(verb)[_SAID] = parameters


def parameters_of(verb: Callable[..., None]) -> list[click.Parameter]:
    """Return what *verb* takes. Each parameter is annotated as ``Annotated[type, option(...)]``."""
    return [_parameter(one.name, one.default, *get_args(one.annotation)) for one in signature(verb)]


def _parameter(name: str, default: Any, annotation: Any, taken: Taken) -> click.Parameter:
    kind = _without_none(annotation)
    about = dict(taken.about)
    if several := get_origin(kind) is list:
        (kind,) = get_args(kind)
        about["callback"] = _as_list
    elif default is not _REQUIRED:
        about["default"] = default
    about["type"], about["required"] = _type(kind, taken.least), default is _REQUIRED
    if not taken.flags:
        return click.Argument([name], nargs=-1 if several else 1, **about)
    about |= {"multiple": several, "is_flag": kind is bool, "show_envvar": True}
    return click.Option([name, *taken.flags], **about)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    (kind,) = (one for one in get_args(annotation) if one is not NoneType)
    return kind


def _type(kind: Any, least: int | None) -> Any:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if kind is Path:  # our own errors say whose it is and what to do
        return click.Path(readable=False, path_type=Path)
    return kind if least is None else _RANGES[kind](min=least)


def _as_list(_: click.Context, __: click.Parameter, values: tuple[Any, ...]) -> list[Any]:
    return list(values)
