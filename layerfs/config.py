"""The configuration files: TOML, read strictly; every error names file, key and line.

Flags beat the environment, which beats the user's file, which beats the system's. The keys are those of
`layerfs.settings.ROWS` and of `Budgets`. Imports only errors, layer, settings and `layerfs.tomlfile`; never
any machinery.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import msgspec

from layerfs import tomlfile
from layerfs.errors import InvalidSettings
from layerfs.host.places import xdg
from layerfs.layer.budgets import Budgets
from layerfs.settings import ROWS, SERVE_ROWS, ServeSettings, Settings, absolute
from layerfs.settings.budgets import BudgetsSection, about
from layerfs.tomlfile import TomlFile

SYSTEM_STORE: Final = Path("/var/lib/layerfs")
SYSTEM_FILE: Final = Path("/etc/layerfs/config.toml")
VARIABLE: Final = "LAYERFS_CONFIG"
"""Names one file that is read instead of both; it must exist."""


def _section(name: str, table: str) -> type[msgspec.Struct]:
    """Return the struct of the keys of `ROWS` that are in *table*; each may be left out."""
    keys = [(key.rpartition("."), row) for key, row in _BY_KEY.items()]
    found = [
        (key, Annotated[row.kind.toml | None, about(row.about)], None)
        for (place, _, key), row in keys
        if place == table
    ]
    return msgspec.defstruct(name, found, frozen=True, kw_only=True, forbid_unknown_fields=True)


_BY_KEY: Final = {row.key: row for row in (*ROWS.values(), *SERVE_ROWS.values())}
_FIELD: Final = {row.key: name for name, row in ROWS.items()}
_SERVE_FIELD: Final = {row.key: name for name, row in SERVE_ROWS.items()}


@cache
def _sections() -> dict[str, type[msgspec.Struct]]:
    """Return the tables of a file by name, the keys outside of any first."""
    return {
        "": _section("Top", ""),
        "log": _section("LogSection", "log"),
        "serve": _section("ServeSection", "serve"),
        "budgets": BudgetsSection,
    }


@cache
def _file_type() -> type[msgspec.Struct]:
    """Return the struct of a whole file. Made when there is one to read: it takes milliseconds."""
    tables = [(name, kind) for name, kind in _sections().items() if name]
    return msgspec.defstruct(
        "ConfigFile",
        [(name, Annotated[kind, about(f"See [{name}].")], kind()) for name, kind in tables],
        bases=(_sections()[""],),
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
    )


class Loaded(msgspec.Struct, frozen=True):
    """One file as it was read."""

    document: TomlFile
    values: msgspec.Struct
    """All keys, None where one is left out."""

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.document.path


def places(environ: Mapping[str, str]) -> list[Path]:
    """Return the files to read, the weakest first; most need not exist."""
    alone = environ.get(VARIABLE)
    if alone:
        return [Path(alone)]
    found = [SYSTEM_FILE]
    base = xdg(environ, "config")
    if base is not None:
        found.append(base / "layerfs" / "config.toml")
    return found


def read(path: Path) -> Loaded | None:
    """Read one file, None if there is none. Raises InvalidSettings."""
    document = tomlfile.read(path)
    if document is None:
        return None
    loaded = Loaded(document, _convert(document))
    _check(loaded)
    return loaded


def load(environ: Mapping[str, str]) -> list[Loaded]:
    """Read all files that there are, the weakest first. Raises InvalidSettings."""
    found = [loaded for path in places(environ) if (loaded := read(path)) is not None]
    if not found and environ.get(VARIABLE):
        raise InvalidSettings(f"{environ[VARIABLE]}: no such file ({VARIABLE} names it)")
    return found


def settings_of(environ: Mapping[str, str], uid: int, *, namespace: bool = False) -> Settings:
    """Return the settings before any flag: files, then defaults. Raises InvalidSettings.

    *namespace* says that *uid* is one of a user namespace, so that 0 is not the machine's root.
    """
    merged: dict[str, Any] = {key: value for _, key, value in values(load(environ))}
    budgets = {
        key.partition(".")[2]: value for key, value in merged.items() if key.partition(".")[0] == "budgets"
    }
    given = _fields(merged, _FIELD)
    if serving := _fields(merged, _SERVE_FIELD):
        given["serve"] = ServeSettings(**serving)
    if environ.get("LAYERFS_STORE") or "store" not in given:
        given["store"] = default_store(environ, uid, namespace=namespace)
    if budgets:
        given["budgets"] = msgspec.structs.replace(Budgets(), **budgets)
    return Settings(**given)


def _fields(merged: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of those keys that *names* has a field for, by field."""
    return {
        names[key]: _BY_KEY[key].kind.of_file(value, key) for key, value in merged.items() if key in names
    }


def default_store(environ: Mapping[str, str], uid: int, *, namespace: bool = False) -> Path:
    """Say where the store is unless ``--store`` says otherwise.

    ``$LAYERFS_STORE``, else /var/lib/layerfs for root, else below ``$XDG_DATA_HOME``. In a user *namespace*
    root is its maker, who has another store outside: the two cannot share one. Raises InvalidSettings.
    """
    chosen = environ.get("LAYERFS_STORE")
    if chosen:
        return absolute(Path(chosen), "LAYERFS_STORE")
    if uid == 0 and not namespace:
        return SYSTEM_STORE
    name = "layerfs-namespace" if uid == 0 else "layerfs"
    base = xdg(environ, "data")
    if base is None:
        raise InvalidSettings("no place for the store: HOME is not set (give --store DIR)")
    return base / name


def values(files: list[Loaded]) -> Iterator[tuple[Path, str, Any]]:
    """Yield file, key and value of everything that is set, the weakest first."""
    for loaded in files:
        for key, value in _flat(loaded.values):
            if value is not None:
                yield loaded.path, key, value


def described() -> Iterator[tuple[str, str, str]]:
    """Yield table (empty for the top), key and description of all keys, for the manual."""
    for table, struct in _sections().items():
        for field in msgspec.structs.fields(struct):
            yield table, field.name, _description(field.type)


def _description(type_: Any) -> str:
    found: str = next(meta.description for meta in type_.__metadata__ if meta.description)
    return found


def _flat(struct: msgspec.Struct, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        if isinstance(value, msgspec.Struct):
            yield from _flat(value, f"{field.name}.")
        else:
            yield prefix + field.name, value


def _convert(document: TomlFile) -> msgspec.Struct:
    try:
        return msgspec.convert(document.content, _file_type())
    except msgspec.ValidationError as exc:
        found = tomlfile.complaint(exc)
        key, problem = ".".join(map(str, found.key)), found.problem
        if found.unknown:
            problem += _similar(key)
        elif allowed := get_args(_BY_KEY[key].kind.toml) if "enum" in problem else ():
            problem = f"{problem.removeprefix('Invalid enum value ')} (expected one of {', '.join(allowed)})"
        raise InvalidSettings(document.located(found.key, problem)) from exc


def _similar(key: str) -> str:
    import difflib

    known = [f"{table}.{name}" if table else name for table, name, _ in described()]
    found = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    return f" (did you mean {found[0]}?)" if found else f" (expected one of {', '.join(known)})"


def _check(loaded: Loaded) -> None:
    """Judge what the types cannot. Raises InvalidSettings."""
    for key, value in _flat(loaded.values):
        if value is not None and key in _BY_KEY:
            try:
                _BY_KEY[key].kind.of_file(value, key)
            except InvalidSettings as exc:
                loaded.document.fail(tuple(key.split(".")), str(exc))
