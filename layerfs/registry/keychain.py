"""Finds credentials: reads files in their documented order, runs helpers. Knows no HTTP.

Order: the file of the settings alone; else systemd's ``$CREDENTIALS_DIRECTORY/auth.json``, then
``$REGISTRY_AUTH_FILE`` or ``$DOCKER_CONFIG`` alone, else podman's places, then docker's.
Files are read anew for each lookup (one per token), so that a login counts at once.
"""

import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
import trio

from layerfs.errors import InvalidSettings
from layerfs.flights import SingleFlight
from layerfs.host.files import read_believed
from layerfs.host.places import xdg
from layerfs.registry import helper
from layerfs.registry.credentials import (
    AuthFile,
    Credential,
    helper_program,
    helper_server,
)
from layerfs.registry.settings import RegistrySettings

_log = logging.getLogger("layerfs.registry")
MAX_FILE: Final = 1 << 20
_HELPER_LIFE: Final = 300.0


class Lookup(msgspec.Struct, frozen=True):
    """What was found, and what to say about it."""

    credential: Credential | None
    note: str
    is_remembered: bool = False
    """Whether a helper said it some time ago: it may have another login now."""

    @classmethod
    def nothing(cls, why: str = "") -> "Lookup":
        """There is no login; *why* if something went wrong."""
        return cls(None, "no credentials" + (f" ({why})" if why else ""))


def places(settings: RegistrySettings, uid: int | None = None) -> Iterator[tuple[Path, bool]]:
    """Yield the files to read, first come first served, and whether each is a legacy one."""
    env = settings.variables
    if settings.authfile is not None:
        yield settings.authfile, False
        return
    if service := env.get("CREDENTIALS_DIRECTORY"):
        yield Path(service, "auth.json"), False
    if alone := env.get("REGISTRY_AUTH_FILE"):
        yield Path(alone), False
        return
    if docker := env.get("DOCKER_CONFIG"):
        yield Path(docker, "config.json"), False
        return
    runtime = env.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid() if uid is None else uid}"
    if env.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers/auth.json"), False
    else:
        yield Path(runtime, "auth.json"), False
    yield from _homes(env)


def _homes(env: Mapping[str, str]) -> Iterator[tuple[Path, bool]]:
    home = env.get("HOME", "")
    config = xdg(env, "config")
    if config is not None:
        yield config / "containers/auth.json", False
    if home:
        yield Path(home, ".docker/config.json"), False
        yield Path(home, ".dockercfg"), True


class Keychain:
    """Looks credentials up; remembers for a few minutes what helpers said."""

    def __init__(self, settings: RegistrySettings) -> None:
        self.settings = settings
        self._answers: dict[tuple[str, str], tuple[float, Credential | None]] = {}
        """What each helper said of each server, and when, in trio's time."""
        self._flights: SingleFlight[tuple[str, str], Credential | None] = SingleFlight()
        self._complained: set[str] = set()
        self._login_for = ""
        """The registry that the login of the settings is for: the first that asks, and no other."""

    async def find(self, registry: str, repository: str, *, given: bool = True) -> Lookup:
        """Return the login for a repository; *given* if the one of the settings may be for it.

        Never raises for a broken file or helper: it is logged once.
        """
        began = trio.current_time()
        if not self.settings.use_credentials:
            return Lookup.nothing("they are switched off")
        if self.settings.login is not None and not given:
            return Lookup.nothing("those that were given are for the registry, not for its mirrors")
        if self.settings.login is not None:
            self._login_for = self._login_for or registry
            if registry != self._login_for:
                return Lookup.nothing(
                    f"those that were given are for {self._login_for}, which was asked first"
                )
            return Lookup(self.settings.login, str(self.settings.login))
        why = ""
        for path, legacy in places(self.settings):
            try:
                file = await trio.to_thread.run_sync(read_authfile, path, legacy)
                found, final = await self._in_file(file, registry, repository) if file else (None, False)
            except InvalidSettings as exc:
                why = str(exc)
                self._complain(why)
                continue
            if found is not None:
                return Lookup(found, str(found), self._was_said(registry, began))
            if final:
                break
        return Lookup.nothing(why)

    def forget(self, registry: str, until: float) -> None:
        """Ask helpers again next time: what they gave up to *until*, of trio's time, was refused."""
        server = helper_server(registry)
        self._answers = {
            key: value for key, value in self._answers.items() if key[1] != server or value[0] > until
        }

    def _was_said(self, registry: str, before: float) -> bool:
        server = helper_server(registry)
        return any(key[1] == server and when < before for key, (when, _) in self._answers.items())

    async def _in_file(
        self, file: AuthFile, registry: str, repository: str
    ) -> tuple[Credential | None, bool]:
        """Return the login in *file*, and whether its word is final."""
        if named := file.helper_for(registry):
            return await self._ask_helper(named, registry), True
        if file.store:
            found = await self._ask_helper(file.store, registry)
            if found is not None:
                return found, True
        return file.login(registry, repository), False

    async def _ask_helper(self, name: str, registry: str) -> Credential | None:
        key = name, helper_server(registry)
        when, answer = self._answers.get(key, (-math.inf, None))
        if trio.current_time() < when + _HELPER_LIFE:
            return answer

        async def asked() -> Credential | None:
            found = await helper.ask(helper_program(name), key[1], self.settings)
            self._answers[key] = trio.current_time(), found
            return found

        return await self._flights.do(key, asked)

    def _complain(self, text: str) -> None:
        if text not in self._complained:
            self._complained.add(text)
            _log.warning("%s; going on without it", text)


def registries_with_logins(settings: RegistrySettings) -> frozenset[str]:
    """Return the registries that the credential files name. A broken file names none; blocking."""
    return frozenset(registry for file in _files(settings) for registry in file.registries())


def needs_helper(settings: RegistrySettings) -> bool:
    """Say whether the credential files name programs to ask. Blocking."""
    return any(file.helpers or file.store for file in _files(settings))


def _files(settings: RegistrySettings) -> Iterator[AuthFile]:
    for path, legacy in places(settings) if settings.use_credentials else ():
        try:
            file = read_authfile(path, legacy)
        except InvalidSettings as exc:
            _log.warning("%s; going on without it", exc)
            continue
        if file is not None:
            yield file


def read_authfile(path: Path, legacy: bool = False) -> AuthFile | None:
    """Read a credential file, None if there is none. Raises InvalidSettings, also if others can change it."""
    try:
        raw = read_believed(path, MAX_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise InvalidSettings(f"{path}: {exc.strerror} (expected a credential file)") from exc
    return AuthFile.parse(raw, str(path), legacy=legacy)
