"""A row of a table of settings: where a user may say what a field is, and how that is read."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin

import msgspec

from layerfs.settings.kinds import ValueKind


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """How a user may say one field of a struct of settings: it stands beside the type of the field."""

    kind: ValueKind
    about: str
    """For layerfs.toml(5), and for ``--help`` unless there is a *help*."""
    help: str = ""
    key: str = ""
    """The key in the file, with its table and a dot; empty for the name of the field."""
    flags: str = ""
    """How the option is written, ``--on/--off`` for a flag; empty if there is none."""
    metavar: str | None = None
    variable: str | None = None
    """The variable of the environment. It stands for the option, and is weaker than a word of ``-o``."""
    word: bool = False
    """Whether the field's name is a word of ``-o``."""
    example: Any = None
    """What a file may say, as TOML has it, where that of the kind means nothing."""


def by(kind: ValueKind, about: str, **more: Any) -> Row:
    """Return the row of a field that a user may say."""
    return Row(kind=kind, about=about, **more)


def rows_of(settings: type[msgspec.Struct]) -> Mapping[str, Row]:
    """Return the rows of a struct, by field; those that it has for programs alone have none."""
    types: dict[str, Any] = {}
    for each in reversed(settings.__mro__):
        if issubclass(each, msgspec.Struct):
            types |= each.__annotations__
    rows = {
        name: get_args(types[name])[1]
        for name in settings.__struct_fields__
        if get_origin(types[name]) is Annotated
    }
    return {name: msgspec.structs.replace(row, key=row.key or name) for name, row in rows.items()}
