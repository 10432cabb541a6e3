"""``layerfs config example``: a configuration file that names every key and sets none. Pure.

Made of the table of settings, so a package that installs it cannot fall behind. As in files of Debian, a line
of prose has a blank behind its mark and a line that can be taken into use has none.
"""

import textwrap
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from layerfs import config
from layerfs.layer.budgets import Budgets
from layerfs.settings import ROWS, SERVE_ROWS, ServeSettings, Settings

_WIDTH: Final = 98
_HEAD: Final = """\
# Configuration of layerfs: every key, each with its default, or with an example where it has none.
# Take the mark off a line to use it. layerfs.toml(5) has more; layerfs config check finds mistakes.
"""
_TABLES: Final = ((ROWS, Settings), (SERVE_ROWS, ServeSettings))
_ROWS: Final = {row.key: row for rows, _ in _TABLES for row in rows.values()}
_DEFAULTS: Final = {
    rows[one.name].key: one.default
    for rows, kind in _TABLES
    for one in msgspec.structs.fields(kind)
    if one.name in rows
}


def sample() -> str:
    """Return the text of the file."""
    return _HEAD + "".join(_lines())


def toml(value: object) -> str:
    """Return *value* as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return msgspec.json.encode(value).decode() if isinstance(value, str) else str(value)


def _lines() -> Iterator[str]:
    current = ""
    for table, key, about in config.described():
        if table != current:
            current = table
            yield f"\n[{table}]\n"
        yield "\n"
        for line in textwrap.wrap(about, _WIDTH, break_long_words=False, break_on_hyphens=False):
            yield f"# {line}\n"
        yield f"#{key} = {toml(_value(table, key))}\n"


def _value(table: str, key: str) -> Any:
    """Return the default of a key, or what its row has for an example."""
    if table == "budgets":
        return getattr(Budgets(), key)
    name = f"{table}.{key}" if table else key
    default = _DEFAULTS[name]
    if isinstance(default, bool | int | str):
        return default
    if isinstance(default, float):
        return int(default) if default.is_integer() else default
    row = _ROWS[name]
    return row.kind.example if row.example is None else row.example
