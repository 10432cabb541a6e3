"""The values of options and arguments, read as Typer reads them, without what it reads them with.

Typer has pydantic read each value, which takes longer to import than all the rest of a short command. What is
plain, as nearly everything that is typed, is read here. The rest is left to Typer, each error text included.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import typer.core
from typer._coercion import RuntimeParam, TypeDescriptor, build_runtime_param
from typer.models import ParameterInfo

_NUMBERS: Final = (int, float)


class _NotPlain(Exception):
    """The value is wrong, or one that only Typer can read."""


@dataclass(frozen=True)
class PlainParameter(RuntimeParam):
    """A parameter whose values are read here, if they are plain."""

    descriptor: TypeDescriptor

    def _coerce_value(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            return read(self.annotation, self.parameter_info, value)
        except _NotPlain:
            typers = build_runtime_param(self.descriptor)
            return typers._coerce_value(value, param=param, ctx=ctx)


def install() -> None:
    """Have Typer read values here, from now on."""
    core: Any = typer.core
    core.build_runtime_param = _plain_parameter


def _plain_parameter(descriptor: TypeDescriptor) -> PlainParameter:
    return PlainParameter(
        parameter_info=descriptor.parameter_info, annotation=descriptor.annotation, descriptor=descriptor
    )


def read(annotation: Any, about: ParameterInfo, value: Any) -> Any:
    """Return *value*, as it was typed or as its default is, as one of *annotation*. Raises _NotPlain."""
    if about.parser is not None or about.clamp:
        raise _NotPlain
    if get_origin(annotation) is list and isinstance(value, Sequence) and not isinstance(value, str):
        (kind,) = get_args(annotation)
        return [_one(kind, about, item) for item in value]
    return _one(annotation, about, value)


def _one(annotation: Any, about: ParameterInfo, value: Any) -> Any:
    if annotation in (bool, str) and type(value) is annotation:
        return value
    if get_origin(annotation) is Literal and about.case_sensitive and value in get_args(annotation):
        return value
    if annotation in _NUMBERS and isinstance(value, str):
        return annotation(_digits(about, value))
    if annotation is Path and isinstance(value, str):
        return _path(about, value)
    raise _NotPlain


def _digits(about: ParameterInfo, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 16):  # a float has so many digits
        raise _NotPlain
    number = int(text)
    if (about.min is not None and number < about.min) or (about.max is not None and number > about.max):
        raise _NotPlain
    return number


def _path(about: ParameterInfo, text: str) -> Path:
    anything = about.file_okay and about.dir_okay and not (about.writable or about.resolve_path)
    if not anything or about.allow_dash or about.path_type is not None:
        raise _NotPlain
    if (about.exists or about.readable) and not os.access(text, os.R_OK):
        raise _NotPlain
    return Path(text)
