"""What a program may say as it opens a store: the settings of the command line, as keywords."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

import msgspec

from layerfs.errors import InvalidSettings, UsageError
from layerfs.host.namespaces import in_initial_user_namespace
from layerfs.layer.budgets import Budgets
from layerfs.oci import Platform
from layerfs.settings import Settings
from layerfs.settings.kinds import AMOUNT, UserPassword

StrPath = str | os.PathLike[str]
Laziness = Literal["auto", "never", "always"]
"""Whether an image is mounted before it is here: where that can be, never, or else not at all."""


class Options(TypedDict, total=False):
    """Keywords of `Store.open`; what is left out has the default of the command line."""

    platform: str
    """OS/ARCH[/VARIANT] to choose of an index; this machine's by default."""
    offline: bool
    """Contact no registry."""
    lazy: Literal["auto", "never"]
    """Whether files of layers with a TOC are fetched one by one where that is enough; auto by default."""
    verify_whole: Iterable[str]
    """Repositories, as registry/team/*, whose layers are verified whole before any of it is read."""
    insecure_registries: Iterable[str]
    """HOST[:PORT] of registries that are spoken to by plain HTTP; loopback ones are anyway."""
    registries: Iterable[str]
    """HOST[:PORT] of the only registries that may be contacted."""
    authfile: StrPath
    """The only file to read logins from; by default those that podman and docker read."""
    login: tuple[str, str]
    """User and password, for the registries of this store."""
    tls_verify: bool
    """False believes any certificate, or none."""
    retry: int
    """How often a registry is asked again where that may help."""
    timeout: float
    """Seconds after which a registry is given up that sends nothing."""
    max_size: str
    """What the store may take, as 20GB or 80% of its disk: what does not fit is refused."""
    min_free: str
    """What the disk of the store keeps free."""
    share_store: bool
    """Whether other users may read the store; it is remembered there."""
    store_owner: int
    """uid of somebody whose shared store is believed, too."""
    budgets: Budgets
    """What one layer may cost."""


_ACCESS: Final = frozenset({"tls_verify", "retry", "timeout"})
_SETS: Final = frozenset({"insecure_registries", "registries"})


def settings_of(path: StrPath | None, options: Options) -> Settings:
    """Return the settings for the store at *path*; without one those of the configuration, then *options*.

    A *path* that is given reads no configuration and no variable. Raises InvalidSettings, UsageError.
    """
    changes: dict[str, Any] = {}
    access: dict[str, Any] = {}
    for name, value in options.items():
        if name not in Options.__annotations__:
            raise UsageError(
                f"{name}: no option (expected one of {', '.join(sorted(Options.__annotations__))})"
            )
        if name in _ACCESS:
            access[name] = value
        elif name == "login":
            access["creds"] = _login(value)
        else:
            changes[name] = _parsed(name, value)
    base = _configured() if path is None else Settings(store=Path(os.fspath(path)).absolute())
    return msgspec.structs.replace(base, **changes, access=msgspec.structs.replace(base.access, **access))


def platform_of(text: str | None) -> Platform | None:
    """Read OS/ARCH[/VARIANT]. Raises InvalidSettings."""
    return None if text is None else Platform.parse(text)


def _parsed(name: str, value: Any) -> Any:
    match name:
        case "platform":
            return Platform.parse(value)
        case "authfile":
            return Path(value)
        case "verify_whole":
            return tuple(value)
        case "max_size" | "min_free":
            return AMOUNT.of_option(value, name)
    return frozenset(value) if name in _SETS else value


def _login(value: Any) -> UserPassword:
    try:
        username, password = value
    except (TypeError, ValueError) as exc:
        raise InvalidSettings("login: (expected a user and a password)") from exc
    return UserPassword(username, password)


def _configured() -> Settings:
    from layerfs import config

    return config.settings_of(os.environ, os.getuid(), namespace=not in_initial_user_namespace())
