"""The words after ``-o``, as mount(8), fstab and mount.fuse3 pass them on. Pure.

Most of them mean nothing to a mount that is read-only whatever one says; they are accepted, because fstab
lines and helpers are full of them. Our own have the names and the meaning of the long options.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from layerfs.errors import UsageError
from layerfs.oci import Platform
from layerfs.settings import absolute

_KERNEL: Final = frozenset({"noexec", "noatime", "nodiratime", "relatime", "strictatime", "sync", "dirsync"})
"""Passed on."""

_IGNORED: Final = frozenset(
    # Of mount(8) and fstab(5); nosuid, nodev and ro hold always, and their opposites never.
    {
        "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "atime", "async", "defaults", "auto", "noauto",
        "user", "nouser", "users", "group", "owner", "_netdev", "nofail", "default_permissions", "loud",
        "silent",
    }
)  # fmt: skip
_FLAGS: Final = {"allow_other": ("allow_other", True), "offline": ("offline", True)}
_VALUES: Final = ("store", "platform", "authfile", "registries", "fetch_timeout")


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What ``-o`` says: changes of Settings by field, and words for the kernel."""

    settings: dict[str, Any]
    kernel: tuple[str, ...]


def parse(texts: Iterable[str]) -> MountOptions:
    """Read comma-separated options, the last of two alike counts. Raises UsageError, InvalidSettings."""
    settings: dict[str, Any] = {}
    kernel: dict[str, None] = {}
    for word in filter(None, ",".join(texts).split(",")):
        name, equals, value = word.partition("=")
        if not equals and name in _FLAGS:
            field, setting = _FLAGS[name]
            settings[field] = setting
        elif equals and name in _VALUES:
            settings[name] = _value(name, value)
        elif not equals and name in _KERNEL:
            kernel[name] = None
        elif name not in _IGNORED and not name.startswith(("x-", "X-", "comment")):
            known = ", ".join(sorted([*_FLAGS, *(f"{one}=" for one in _VALUES), *_KERNEL]))
            raise UsageError(f"-o {word}: not an option of layerfs (expected one of: {known})")
    return MountOptions(settings, tuple(kernel))


def _value(name: str, text: str) -> Any:
    if name == "platform":
        return Platform.parse(text)
    if name == "registries":
        return frozenset(filter(None, text.split("+")))  # a comma ends the option, a colon the host
    if name == "fetch_timeout":
        try:
            return float(text)
        except ValueError:
            raise UsageError(f"-o fetch_timeout={text}: not a number of seconds") from None
    return absolute(Path(text), f"-o {name}")
