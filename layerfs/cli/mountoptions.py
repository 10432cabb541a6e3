"""The words after ``-o``, as mount(8), fstab and mount.fuse3 pass them on. Pure.

Most of them mean nothing to a mount that is read-only whatever one says; they are accepted, because fstab
lines and helpers are full of them. Our own are those of `layerfs.settings.ROWS`.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from layerfs.errors import UsageError
from layerfs.settings import FLAG, ROWS

KERNEL: Final = frozenset({"noexec", "noatime", "nodiratime", "relatime", "strictatime", "sync", "dirsync"})
"""Passed on."""

SOURCE: Final = "fsname"
"""Passed on with its value: what mountinfo calls the source."""

IGNORED: Final = frozenset(
    # Of mount(8) and fstab(5); nosuid, nodev and ro hold always, and their opposites never.
    {
        "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "atime", "async", "defaults", "auto", "noauto",
        "user", "nouser", "users", "group", "owner", "_netdev", "nofail", "default_permissions", "loud",
        "silent",
    }
)  # fmt: skip
_WORDS: Final = {name: row.kind for name, row in ROWS.items() if row.word}


class MountOptions(msgspec.Struct, frozen=True):
    """What ``-o`` says: changes of Settings by field, and words for the kernel."""

    settings: dict[str, Any]
    kernel: tuple[str, ...]


def parse(texts: Iterable[str]) -> MountOptions:
    """Read comma-separated options, the last of two alike counts. Raises UsageError, InvalidSettings."""
    settings: dict[str, Any] = {}
    kernel: dict[str, None] = {}
    for word in filter(None, ",".join(texts).split(",")):
        name, equals, value = word.partition("=")
        kind = _WORDS.get(name)
        negated = _WORDS.get(name.removeprefix("no"))
        if not equals and FLAG in (kind, negated):
            settings[name if kind else name.removeprefix("no")] = kind is FLAG
        elif equals and kind not in (None, FLAG):
            settings[name] = kind.of_word(value, f"-o {name}")
        elif name == SOURCE and value:
            kernel = {one: None for one in kernel if not one.startswith(f"{SOURCE}=")} | {word: None}
        elif not equals and name in KERNEL:
            kernel[name] = None
        elif name not in IGNORED and not name.startswith(("x-", "X-", "comment")):
            expected = f"{known()}, {', '.join(sorted(KERNEL))}, {SOURCE}="
            raise UsageError(f"-o {word}: not an option of layerfs (expected one of: {expected})")
    return MountOptions(settings, tuple(kernel))


def known() -> str:
    """Return the words that set something of layerfs, as people read them."""
    return ", ".join(f"[no]{name}" if kind is FLAG else f"{name}=" for name, kind in sorted(_WORDS.items()))
