"""How the values of settings are written: in files, as options, as words behind ``-o``."""

import math
import os
import pwd
import re
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Annotated, Any, ClassVar, Final, Literal, Self, get_args

import msgspec

from layerfs.discreet import Discreet
from layerfs.durations import seconds_of
from layerfs.errors import InvalidSettings
from layerfs.oci import Platform
from layerfs.oci.reference import is_registry

Order = Literal["layers", "blobs"]
"""What is evicted first: extracted layers, which a blob brings back without a network, or blobs."""
Lazy = Literal["auto", "never"]
"""Whether layers with a TOC are shown before they are here."""
Background = Literal["never", "idle", "always"]
"""When lazy layers that somebody looks at are completed."""
Level = Literal["debug", "info", "warning", "error"]


class Amount(msgspec.Struct, frozen=True):
    """Bytes, or a part of the filesystem."""

    bytes: int = 0
    percent: float = 0

    def of(self, filesystem: int) -> int:
        """Return the bytes that it is of a filesystem of so many."""
        return self.bytes + int(filesystem * self.percent / 100)


class UserPassword(Discreet, frozen=True):
    """A login as ``--creds`` has it. Its repr does not show the password."""

    hidden: ClassVar[frozenset[str]] = frozenset({"password"})

    username: str
    password: str | None
    """None: to be asked for."""

    @classmethod
    def parse(cls, text: str, what: str) -> Self:
        """Read ``USER[:PASSWORD]``. Raises InvalidSettings, which does not quote it."""
        username, colon, password = text.partition(":")
        if not username or (colon and not password):
            missing = "password" if username else "user name"
            raise InvalidSettings(f"{what}: no {missing} in it (expected USER:PASSWORD, or USER)")
        return cls(username, password if colon else None)


def absolute(path: Path, what: str) -> Path:
    """Return *path* made absolute, links as given. Raises InvalidSettings for an empty one."""
    if path == Path():
        raise InvalidSettings(f"{what}: empty path")
    return Path.cwd() / path


def _as_it_is(value: Any, _: str) -> Any:
    return value


class ValueKind(msgspec.Struct, frozen=True, kw_only=True):
    """How values of one kind are written.

    A reader gets what was written and what to call it in an error. Raises InvalidSettings.
    """

    toml: Any
    """Type in a file."""
    option: Any
    """Type of the option's argument, as `layerfs.cli.takes` reads it; a value of it is never None."""
    of_file: Callable[[Any, str], Any] = _as_it_is
    of_option: Callable[[Any, str], Any] = _as_it_is
    of_word: Callable[[str, str], Any] = _as_it_is
    """For the text behind ``=`` after ``-o``."""
    least: int | None = None
    """The smallest number, of an option; *toml* says it for a file."""
    example: Any = None
    """What a file may say, as TOML has it, for a field that has no default to show."""


def _path_of_file(written: str, _: str) -> Path:
    """Read a path. A file of the system serves all users, so variables stand for what differs."""
    try:
        text = Template(written).substitute(os.environ)
    except KeyError as exc:
        raise InvalidSettings(f"{written!r}: no variable {exc.args[0]} in the environment") from exc
    except ValueError as exc:
        raise InvalidSettings(f"{written!r}: a $ without a name (expected $NAME, or $$ for a $)") from exc
    if not (text.startswith("~/") or Path(text).is_absolute()):
        raise InvalidSettings(f"{text!r} (expected an absolute path, or one that begins with ~/)")
    try:
        return Path(text).expanduser()
    except RuntimeError as exc:
        raise InvalidSettings(f"{text}: no home directory to put in the place of ~") from exc


def _hosts_of_file(hosts: list[str], _: str) -> frozenset[str]:
    for host in hosts:
        if not is_registry(host):
            raise InvalidSettings(f"{host!r} is no registry (expected HOST or HOST:PORT)")
    return frozenset(hosts)


def _networks_of_file(texts: list[str], _: str) -> frozenset[str]:
    from ipaddress import ip_network

    try:
        return frozenset(str(ip_network(text)) for text in texts)
    except ValueError as exc:
        raise InvalidSettings(f"{exc} (expected NETWORK/BITS, as 10.0.0.0/8)") from exc


def _user(name: str | int, what: str) -> int:
    text = str(name)
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError as exc:
        raise InvalidSettings(
            f"{what}: no user {text!r} (expected a name of this machine, or a uid)"
        ) from exc


def _one_of(words: tuple[str, ...]) -> Callable[[str, str], str]:
    def read(text: str, what: str) -> str:
        if text not in words:
            raise InvalidSettings(f"{what}={text} (expected {' or '.join(words)})")
        return text

    return read


def _hosts_between(separator: str) -> Callable[[str, str], frozenset[str]]:
    return lambda text, _: frozenset(filter(None, text.split(separator)))


def _seconds_of_word(text: str, what: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 1:
        raise InvalidSettings(f"{what}={text}: not a number of seconds (expected at least 1)")
    return seconds


_AMOUNT: Final = r"(\d{1,15}(?:\.\d{1,3})?)\s*(%|[kMGTP]?i?B?)"
_POWERS: Final = "kMGTP"


def _amount(text: str | int, what: str) -> Amount:
    match = re.fullmatch(_AMOUNT, str(text).strip(), re.ASCII)
    if match is None:
        raise InvalidSettings(
            f"{what}: {text!r} (expected bytes, as 20GB or 512MiB, or a part of the disk, as 80%)"
        )
    number, unit = float(match[1]), match[2]
    if unit == "%":
        if number > 100:
            raise InvalidSettings(f"{what}: {text!r} (expected 100% at most)")
        return Amount(percent=number)
    base = 1024 if "i" in unit else 1000
    return Amount(int(number * base ** (1 + _POWERS.index(unit[0]) if unit[:1] in tuple(_POWERS) else 0)))


_SLOWEST: Final = 64 << 10


def _rate(text: str | int, what: str) -> int:
    amount = _amount(str(text).strip().removesuffix("/s"), what)
    if amount.percent or amount.bytes < _SLOWEST:
        raise InvalidSettings(f"{what}: {str(text)[:100]!r} (expected 64KiB a second or more, as 20MB)")
    return amount.bytes


def _duration(text: str, what: str) -> float:
    seconds = seconds_of(text)
    if seconds is None:
        raise InvalidSettings(f"{what}: {text[:100]!r} is no duration (expected 90, 30s, 5m or 1h30m)")
    return seconds


FLAG: Final = ValueKind(toml=bool, option=bool, example=True)
"""Yes or no. Its words are the name, and the name behind ``no``, as of mount(8)."""
SECONDS: Final = ValueKind(
    toml=Annotated[float, msgspec.Meta(ge=1)], option=float, of_word=_seconds_of_word, least=1, example=3600
)
PATH: Final = ValueKind(
    toml=str,
    option=Path,
    of_file=_path_of_file,
    of_option=absolute,
    of_word=lambda text, what: absolute(Path(text), what),
)
PLATFORM: Final = ValueKind(
    toml=str,
    option=str,
    of_file=lambda text, _: Platform.parse(text),
    of_option=lambda text, _: Platform.parse(text),
    of_word=lambda text, _: Platform.parse(text),
    example="linux/arm64",
)
HOSTS: Final = ValueKind(
    toml=list[str],
    option=str,
    of_file=_hosts_of_file,
    of_option=_hosts_between(","),
    of_word=_hosts_between("+"),  # a comma ends the word, a colon the host
    example=["docker.io", "ghcr.io"],
)
"""Hosts with something between them, which as an option may be none."""
HOSTS_EACH: Final = ValueKind(
    toml=list[str],
    option=list[str],
    of_file=_hosts_of_file,
    of_option=lambda hosts, _: frozenset(hosts),
    example=["registry.lan:5000"],
)
"""Hosts, one each time that the option is given."""
NETWORKS: Final = ValueKind(
    toml=list[str], option=list[str], of_file=_networks_of_file, example=["10.0.0.0/8"]
)
AMOUNT: Final = ValueKind(
    toml=str | Annotated[int, msgspec.Meta(ge=0)],
    option=str,
    of_file=_amount,
    of_option=_amount,
    of_word=_amount,
    example="20GB",
)
"""Bytes, or a part of the filesystem."""
PATTERNS: Final = ValueKind(
    toml=list[str],
    option=list[str],
    of_file=lambda texts, _: tuple(texts),
    of_option=lambda texts, _: tuple(texts),
    example=["ghcr.io/team/*"],
)
"""Patterns of references, as a shell's."""
ORDER: Final = ValueKind(toml=Order, option=Order)
LAZY: Final = ValueKind(toml=Lazy, option=Lazy, of_word=_one_of(get_args(Lazy)))
BACKGROUND: Final = ValueKind(toml=Background, option=Background)
USER: Final = ValueKind(
    toml=str | Annotated[int, msgspec.Meta(ge=0)],
    option=str,
    of_file=_user,
    of_option=_user,
    of_word=_user,
    example="root",
)
"""A user of this machine by name or uid; a uid as value."""
LEVEL: Final = ValueKind(toml=Level, option=Level)
RATE: Final = ValueKind(
    toml=str | Annotated[int, msgspec.Meta(ge=0)],
    option=str,
    of_file=_rate,
    of_option=_rate,
    of_word=_rate,
    example="20MB",
)
"""Bytes a second. Slower ones would let registries seem dead that are not."""
STREAMS: Final = ValueKind(toml=Annotated[int, msgspec.Meta(ge=1, le=16)], option=int, least=1)
COUNT: Final = ValueKind(toml=Annotated[int, msgspec.Meta(ge=0)], option=int, least=0)
DURATION: Final = ValueKind(toml=str, option=str, of_file=_duration, of_option=_duration)
"""A length of time, as those of Go's programs; seconds as value."""
CREDENTIALS: Final = ValueKind(toml=str, option=str, of_option=UserPassword.parse)
