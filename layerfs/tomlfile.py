"""A TOML file, read strictly; what is wrong with it is said with file, line and key.

Imports only errors and how to read a file: whose keys these are, its callers know (`layerfs.config`,
`layerfs.registry.mirrors`).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from layerfs.errors import InvalidSettings
from layerfs.host.files import read_believed

MAX_FILE: Final = 1 << 20
"""Bytes."""

T = TypeVar("T")
Key = tuple[str | int, ...]
"""Where a value stands: names of tables and keys, numbers in arrays of tables."""

_WHERE: Final = r" - at `(?:key in )?\$\.?(?P<path>[^`]*)`$"
_PRIVATE: Final = r"(?<=://)[^/@]*@|\?\S*"
"""User and password, and the query of a URL that is a key."""
_AT: Final = r" \(at line (?P<line>\d+), column \d+\)$"
_UNKNOWN: Final = r"unknown field `(?P<name>[^`]*)`"
_TYPE: Final = r"`(?P<name>[a-z]+)(?: \| (?:null|[a-z]+))*`"
_TYPES: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
"""What msgspec calls a type, in words of TOML."""
_HEADER: Final = r"\s*(?P<open>\[\[?)(?P<name>.*?)\]\]?\s*(?:#.*)?"
_PART: Final = r"\s*(?:\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<bare>[A-Za-z0-9_-]+))\s*"


class Complaint(msgspec.Struct, frozen=True):
    """What msgspec has against a value, in words of TOML."""

    key: Key
    problem: str
    unknown: bool = False
    """The key is one that nobody knows."""


class TomlFile(msgspec.Struct, frozen=True):
    """One file as it was read."""

    path: Path
    text: str
    content: dict[str, Any]

    def fail(self, key: Key, problem: str) -> NoReturn:
        """Raise InvalidSettings that names *key* and its line."""
        raise InvalidSettings(self.located(key, problem))

    def located(self, key: Key, problem: str) -> str:
        """Return *problem* with file, line and key before it."""
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).lstrip(".")
        name = re.sub(_PRIVATE, "", name)
        place = self.place(key)
        return f"{place}: {name}: {problem}" if name else f"{place}: {problem}"

    def place(self, key: Key) -> str:
        """Return file and line of *key*, or of the table that it would be in."""
        line = _line_of(self.text, key)
        return f"{self.path}, line {line}" if line else str(self.path)

    def converted(self, content: object, kind: type[T], at: Key = ()) -> T:
        """Return *content*, which stands at *at*, as a *kind*. Raises InvalidSettings."""
        try:
            return msgspec.convert(content, kind)
        except msgspec.ValidationError as exc:
            found = complaint(exc, at)
            self.fail(found.key, found.problem)


def read(path: Path) -> TomlFile | None:
    """Read one file, None if there is none. Raises InvalidSettings, also if others can change it."""
    try:
        raw = read_believed(path, MAX_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise InvalidSettings(f"{path}: {exc.strerror} (expected a configuration file)") from exc
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        raise InvalidSettings(f"{path}, line {line}: not UTF-8") from exc
    import tomllib  # most users have no file

    try:
        return TomlFile(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        raise InvalidSettings(_syntax_error(path, text, str(exc))) from exc


def complaint(exc: msgspec.ValidationError, at: Key = ()) -> Complaint:
    """Return what *exc* says of a value that stands at *at*."""
    problem = str(exc)
    where = re.search(_WHERE, problem)
    key = (*at, *_parts_of_path(where["path"] if where else ""))
    problem = problem[: where.start()] if where else problem
    if unknown := re.search(_UNKNOWN, problem):
        return Complaint((*key, unknown["name"]), "unknown key", unknown=True)
    return Complaint(key, re.sub(_TYPE, lambda found: _TYPES.get(found["name"], found["name"]), problem))


def _parts_of_path(path: str) -> Iterator[str | int]:
    for part in re.findall(r"[^.\[\]]+", path):
        yield int(part) if part.isdecimal() else part


def _syntax_error(path: Path, text: str, problem: str) -> str:
    """Put the line first, where all other errors have it."""
    where = re.search(_AT, problem)
    line = where["line"] if where else text.rstrip().count("\n") + 1
    told = re.sub(_AT, "", problem.removesuffix(" (at end of document)"))
    if told == r"Illegal character '\n'":
        told = "the line ends inside a string (expected its closing quote)"
    return f"{path}, line {line}: {told}"


def _line_of(text: str, key: Key) -> int | None:
    """Return the line that sets *key* or something in it, else that of the innermost table around it."""
    best: tuple[int, int] | None = None
    for line, found in _keys(text):
        if key and found[: len(key)] == key:
            return line
        if found and found == key[: len(found)] and (best is None or len(found) > best[0]):
            best = len(found), line
    return best[1] if best else None


def _keys(text: str) -> Iterator[tuple[int, Key]]:
    """Yield each line that opens a table or sets a key, and which."""
    counts: dict[Key, int] = {}
    table: Key = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.fullmatch(_HEADER, line):
            name = _numbered(_names(header["name"])[0], counts)
            if header["open"] == "[[":
                counts[name] = counts.get(name, -1) + 1
                name = (*name, counts[name])
            table = name
            yield number, table
        else:
            names, rest = _names(line)
            if names and rest.startswith("="):
                yield number, (*table, *names)


def _numbered(names: Key, counts: dict[Key, int]) -> Key:
    """Put in the number of the last table of each array on the way."""
    found: Key = ()
    for position, name in enumerate(names):
        found = (*found, name)
        if found in counts and position < len(names) - 1:
            found = (*found, counts[found])
    return found


def _names(text: str) -> tuple[Key, str]:
    """Return the dotted names that *text* begins with, and what follows them."""
    names: Key = ()
    position = 0
    while part := re.compile(_PART).match(text, position):
        names = (*names, part["double"] or part["single"] or part["bare"] or "")
        position = part.end()
        if not text.startswith(".", position):
            break
        position += 1
    return names, text[position:]
