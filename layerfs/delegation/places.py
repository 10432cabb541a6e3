"""Where daemons listen: below the runtime directory of their user, which nobody else may enter."""

import os
from collections.abc import Mapping
from stat import S_IMODE, S_ISDIR
from typing import Final

_SYSTEM: Final = "/run/layerfs"
_NAME: Final = ".daemons"
"""Mounts are made beside it: by the units of the Debian package, and for lazy overlays."""
_UID_MAP: Final = "/proc/self/uid_map"


def directory(environ: Mapping[str, str], uid: int) -> str | None:
    """Return the directory of the sockets of *uid*; None if there is no place for it."""
    if uid == 0 and _is_root_of_all():
        return f"{_SYSTEM}/{_NAME}"
    base = environ.get("XDG_RUNTIME_DIR", "")
    return f"{base}/layerfs/{_NAME}" if base.startswith("/") else None


def is_private(path: str, uid: int) -> bool:
    """Say whether *path* is a directory of *uid* that nobody else may enter."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return S_ISDIR(found.st_mode) and found.st_uid == uid and S_IMODE(found.st_mode) == 0o700


def name_of(process: str) -> str:
    """Return the name of the socket of a *process*, which tells it from others: where it sees what we see."""
    return f"{_mounts()}-{process}"


def sockets(path: str) -> list[str]:
    """Return the sockets in a directory of those who see the same mounts; none if it cannot be listed."""
    try:
        mine = f"{_mounts()}-"
        return sorted(f"{path}/{name}" for name in os.listdir(path) if name.startswith(mine))
    except OSError:
        return []


def _mounts() -> int:
    """Return the number of this process's mount namespace. Raises OSError."""
    return os.stat("/proc/self/ns/mnt").st_ino


def _is_root_of_all() -> bool:
    """Say whether root here is the machine's root, as `layerfs.host.namespaces` says it to others."""
    try:
        with open(_UID_MAP, "rb", buffering=0) as file:
            return file.read(100).split() == [b"0", b"0", b"4294967295"]
    except OSError:
        return True
