"""The configuration files: TOML, read strictly; every error names file, key and line.

Flags beat the environment, which beats the user's file, which beats the system's. Imports only errors, oci,
layer, settings and how to read a file; never any machinery. Called by the command line.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn

import msgspec

from layerfs.errors import InvalidSettings
from layerfs.host.files import read_at_most
from layerfs.host.places import xdg
from layerfs.layer.record import Budgets
from layerfs.oci import Platform
from layerfs.oci.reference import is_registry
from layerfs.settings import Settings, default_store

SYSTEM_FILE: Final = Path("/etc/layerfs/config.toml")
VARIABLE: Final = "LAYERFS_CONFIG"
"""Names one file that is read instead of both; it must exist."""

_MAX_FILE: Final = 1 << 20
_WHERE: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_AT: Final = re.compile(r" \(at line (?P<line>\d+), column \d+\)$")
_UNKNOWN: Final = re.compile(r"unknown field `(?P<name>[^`]*)`")
_TABLE: Final = re.compile(r"\s*\[\s*(?P<name>[^\[\]]+?)\s*\]\s*(?:#.*)?")
_KEY: Final = re.compile(r"\s*(?P<name>[A-Za-z0-9_.\"' -]+?)\s*=")

Level = Literal["debug", "info", "warning", "error"]
Count = Annotated[int, msgspec.Meta(ge=1)]


def _about(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class LogSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[log]``: what the daemon writes down, and where."""

    level: Annotated[Level | None, _about("debug, info, warning or error; info by default.")] = None
    json: Annotated[bool | None, _about("One JSON object a line instead of text.")] = None
    file: Annotated[
        str | None, _about("Where a daemon in the background logs; absolute. Default: /var/log/layerfs.log.")
    ] = None


class BudgetsSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[budgets]``: what one layer may cost; a layer beyond is refused."""

    max_layer_bytes: Annotated[Count | None, _about("Bytes of the uncompressed archive.")] = None
    max_entries: Annotated[Count | None, _about("Entries of the archive.")] = None
    max_depth: Annotated[Count | None, _about("Components of one path.")] = None
    max_ratio: Annotated[Count | None, _about("Uncompressed to compressed size, after the first 64 MiB.")] = (
        None
    )
    max_pax_bytes: Annotated[
        Count | None, _about("Bytes of one extended header or of an entry's xattrs.")
    ] = None
    max_record_bytes: Annotated[
        Count | None, _about("Bytes of the paths of markers, implied directories and links to later entries.")
    ] = None


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All keys. Every one may be left out."""

    store: Annotated[str | None, _about("Where layers are kept; absolute, or below ~.")] = None
    platform: Annotated[str | None, _about("OS/ARCH[/VARIANT] to choose of an index.")] = None
    insecure_registries: Annotated[
        list[str] | None, _about("HOST[:PORT] of registries that are spoken to by plain HTTP.")
    ] = None
    authfile: Annotated[str | None, _about("Read credentials from this file only; absolute, or below ~.")] = (
        None
    )
    offline: Annotated[bool | None, _about("Contact no registry.")] = None
    fetch_timeout: Annotated[
        Annotated[float, msgspec.Meta(ge=1)] | None,
        _about("Seconds that one access waits for a fetch; 900 by default."),
    ] = None
    tag_ttl: Annotated[
        Annotated[float, msgspec.Meta(ge=1)] | None,
        _about("Seconds after which a tag is resolved anew; never by default."),
    ] = None
    allow_other: Annotated[bool | None, _about("Let other users read the mount.")] = None
    registries: Annotated[
        list[str] | None,
        _about(
            "HOST[:PORT] of the only registries that may be contacted; any by default in a private mount."
        ),
    ] = None
    log: Annotated[LogSection, _about("See [log].")] = LogSection()
    budgets: Annotated[BudgetsSection, _about("See [budgets].")] = BudgetsSection()


@dataclass(frozen=True, slots=True)
class Loaded:
    """One file as it was read."""

    path: Path
    text: str
    values: ConfigFile

    def fail(self, key: str, problem: str) -> NoReturn:
        """Raise InvalidSettings that names *key* and its line."""
        raise InvalidSettings(_located(self.path, self.text, key, problem))


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
    try:
        raw = read_at_most(path, _MAX_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise InvalidSettings(f"{path}: {exc.strerror} (expected a configuration file)") from exc
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        raise InvalidSettings(f"{path}, line {line}: not UTF-8") from exc
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise InvalidSettings(_syntax_error(path, text, str(exc))) from exc
    loaded = Loaded(path, text, _convert(path, text, document))
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
    store = None if environ.get("LAYERFS_STORE") else merged.get("store")
    place = _path(store) if store else default_store(environ, uid, namespace=namespace)
    given: dict[str, Any] = {"store": place}
    if "platform" in merged:
        given["platform"] = Platform.parse(merged["platform"])
    for key in ("insecure_registries", "registries"):
        if key in merged:
            given[key] = frozenset(merged[key])
    for key in ("authfile", "log.file"):
        if key in merged:
            given[key.replace(".", "_")] = _path(merged[key])
    for key in ("offline", "fetch_timeout", "tag_ttl", "allow_other", "log.level", "log.json"):
        if key in merged:
            given[key.replace(".", "_")] = merged[key]
    if budgets:
        given["budgets"] = msgspec.structs.replace(Budgets(), **budgets)
    return Settings(**given)


def values(files: list[Loaded]) -> Iterator[tuple[Path, str, Any]]:
    """Yield file, key and value of everything that is set, the weakest first."""
    for loaded in files:
        for key, value in _flat(loaded.values):
            if value is not None:
                yield loaded.path, key, value


def described() -> Iterator[tuple[str, str, str]]:
    """Yield table (empty for the top), key and description of all keys, for the manual."""
    for table, struct in (("", ConfigFile), ("log", LogSection), ("budgets", BudgetsSection)):
        for field in msgspec.structs.fields(struct):
            if field.name not in ("log", "budgets"):
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


def _convert(path: Path, text: str, document: dict[str, Any]) -> ConfigFile:
    try:
        return msgspec.convert(document, ConfigFile)
    except msgspec.ValidationError as exc:
        problem = str(exc)
        where = _WHERE.search(problem)
        key = where["path"] if where else ""
        problem = problem[: where.start()] if where else problem
        unknown = _UNKNOWN.search(problem)
        if unknown:
            key = f"{key}.{unknown['name']}" if key else unknown["name"]
            problem = "unknown key" + _similar(key)
        raise InvalidSettings(_located(path, text, key, problem)) from exc


def _syntax_error(path: Path, text: str, problem: str) -> str:
    """Put the line first, where all other errors have it."""
    where = _AT.search(problem)
    line = where["line"] if where else text.rstrip().count("\n") + 1
    return f"{path}, line {line}: {_AT.sub('', problem.removesuffix(' (at end of document)'))}"


def _similar(key: str) -> str:
    known = [f"{table}.{name}" if table else name for table, name, _ in described()]
    found = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    return f" (did you mean {found[0]}?)" if found else f" (expected one of {', '.join(known)})"


def _located(path: Path, text: str, key: str, problem: str) -> str:
    line = _line_of(text, re.sub(r"\[[^\]]*\]", "", key))
    place = f"{path}, line {line}" if line else str(path)
    return f"{place}: {key}: {problem}" if key else f"{place}: {problem}"


def _line_of(text: str, key: str) -> int | None:
    """Find the line that sets *key*, a table included; None if it cannot be found."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if found := _TABLE.fullmatch(line):
            table = _plain(found["name"])
            if table == key:
                return number
        elif found := _KEY.match(line):
            name = _plain(found["name"])
            full = f"{table}.{name}" if table else name
            if full == key:
                return number
    return None


def _plain(name: str) -> str:
    return ".".join(part.strip(" \"'") for part in name.split("."))


def _check(loaded: Loaded) -> None:
    """Judge what the types cannot. Raises InvalidSettings."""
    found = loaded.values
    for key, text in (("store", found.store), ("authfile", found.authfile), ("log.file", found.log.file)):
        if text is not None and not (text.startswith("~/") or Path(text).is_absolute()):
            loaded.fail(key, f"{text!r} (expected an absolute path, or one that begins with ~/)")
    if found.platform is not None:
        try:
            Platform.parse(found.platform)
        except InvalidSettings as exc:
            loaded.fail("platform", str(exc))
    for key, hosts in (("insecure_registries", found.insecure_registries), ("registries", found.registries)):
        for host in hosts or ():
            if not is_registry(host):
                loaded.fail(key, f"{host!r} is no registry (expected HOST or HOST:PORT)")


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as exc:
        raise InvalidSettings(f"{text}: no home directory to put in the place of ~") from exc
