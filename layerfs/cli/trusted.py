"""What decides how a pull goes, beside its own words: settings by an environment, and files that they name.

Values that can be compared: a daemon does for a command only what that would do itself. Blocking.
"""

import os
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import click
import msgspec

from layerfs import config
from layerfs.cli.options import Said
from layerfs.delegation.wire import FOUND_BY, is_sent
from layerfs.errors import InvalidSettings
from layerfs.registry import RegistrySettings
from layerfs.registry.keychain import places, read_authfile
from layerfs.registry.mirrors.places import hosts_dirs
from layerfs.settings import ROWS, Settings

_NAMED: Final = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")
_DEEPEST: Final = 2
"""Levels of directories of certificates: HOST/FILE."""

Stamp = tuple[str, int, int, int]
"""The path of a file that is there, and what changes with it: inode, size, nanoseconds of its last change, by
the clock that none but the kernel sets."""


class NotClear(Exception):
    """What a command would make of it only the command can say."""


class Consulted(msgspec.Struct, frozen=True):
    """What files say of registries, and when those of logins and certificates changed."""

    registries: RegistrySettings
    certificates: tuple[Stamp, ...] | None
    """None: they have changed since they were to be as they are in force."""
    logins: tuple[Stamp, ...] | None
    """The same of logins."""
    unclear: str = ""
    """Why the logins are what only the command can say."""

    @classmethod
    def of(
        cls,
        registries: RegistrySettings,
        settings: Settings,
        environ: Mapping[str, str] = os.environ,
        since: int | None = None,
    ) -> Self:
        """Look at files that *settings* and *registries*, computed from them, are about.

        What they say of logins may be nonsense: that is no error here. *since*: nanoseconds since 1970.
        """
        files = list(places(msgspec.structs.replace(registries, environment=environ)))
        return cls(
            registries,
            _unless_since(since, _stamps(_certificates(settings, registries, environ))),
            _unless_since(since, _stamps(path for path, _ in files)),
            next(filter(None, (_unclear(*file) for file in files)), ""),
        )

    def elsewhere(self, now: Self) -> str:
        """Say what is not the same beside logins; empty for nothing."""
        if self.registries != now.registries:
            return "files say something else of registries (SIGHUP has the daemon read them again)"
        if self.certificates is None or self.certificates != now.certificates:
            return "certificates have changed (SIGHUP has the daemon read them)"
        return ""


def _unclear(path: Path, legacy: bool) -> str:
    """Say why only the command can say what logins a file gives; empty if anybody can."""
    try:
        file = read_authfile(path, legacy)
    except InvalidSettings as exc:
        return str(exc)
    if file is not None and (file.helpers or file.store):
        return f"{path}: programs give the logins, by the environment of who asks"
    return ""


def _unless_since(since: int | None, stamps: Iterable[Stamp]) -> tuple[Stamp, ...] | None:
    found = tuple(stamps)
    return None if since is not None and any(changed >= since for *_, changed in found) else found


def pull_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a pull with *variables* of its command; others are those of this process.

    Raises NotClear.
    """
    for name in FOUND_BY:
        if not variables.get(name, "/").startswith("/"):
            raise NotClear(f"{name}: counts from where the command is")
    mine = {name: value for name, value in os.environ.items() if not is_sent(name)}
    return mine | dict(variables)


def pull_settings(environ: Mapping[str, str], options: Mapping[str, str]) -> Settings:
    """Return the settings of a pull with these options and variables. Raises LayerfsError, NotClear."""
    given: dict[str, Any] = {}
    for name, row in ROWS.items():
        said = options.get(name) or (environ.get(row.variable) if row.variable else None)
        if said:
            given[name] = _as_click_reads(row.kind.option, said)
    for file in config.load(environ):
        named = {*_NAMED.findall(file.document.text), *(["HOME"] if "~" in file.document.text else [])}
        for name in named:  # they are put in from the environment of this process
            if not is_sent(name) or environ.get(name) != os.environ.get(name):
                raise NotClear(f"{file.path}: names the variable {name}")
    return Said(given).settings(environ)


def _as_click_reads(kind: Any, said: str) -> Any:
    """Return what an option of *kind* gets. Raises NotClear."""
    if kind is bool:
        try:
            return click.BOOL.convert(said, None, None)
        except click.BadParameter as exc:
            raise NotClear(exc.message) from exc
    if kind == list[str]:
        return said.split()
    if kind is Path and not said.startswith("/"):
        raise NotClear(f"{said[:200]!r}: counts from where the command is")
    return Path(said) if kind is Path else said


def _certificates(
    settings: Settings, registries: RegistrySettings, environ: Mapping[str, str]
) -> Iterator[Path]:
    """Yield files and directories that say who is believed."""
    system = ssl.get_default_verify_paths()
    yield from (Path(each) for each in (system.cafile, system.capath) if each)
    hosts = hosts_dirs(environ) if settings.hosts_dir is None else [settings.hosts_dir]
    for top in (*registries.certs_dirs, *hosts):
        yield from _below(top, _DEEPEST)


def _below(directory: Path, levels: int) -> Iterator[Path]:
    yield directory
    try:
        names = sorted(each.name for each in directory.iterdir()) if levels else []
    except OSError:  # most are not there; files have nothing below them
        return
    for name in names:
        yield from _below(directory / name, levels - 1)


def _stamps(paths: Iterable[Path]) -> Iterator[Stamp]:
    for path in paths:
        with suppress(OSError):  # most are not there
            found = path.stat()
            yield str(path), found.st_ino, found.st_size, found.st_ctime_ns
