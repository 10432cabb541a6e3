"""Whom this process believes on disk: itself and root, judged by owner and mode, never by content.

A file counts if nobody else can change it, a path if nobody else can put something in the place of a part.
"""

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from errno import ELOOP
from typing import Final

from layerfs.host.namespaces import in_initial_user_namespace

_OVERFLOW: Final = 65534
"""How users that a user namespace does not have look in it, root of the machine among them."""
_LINKS_MAX: Final = 40
"""As path_resolution(7) has it."""


def believed() -> frozenset[int]:
    """Return the users whose files count: this process's, root's, in a user namespace the machine's root.

    That one looks like every user whom the namespace does not have; a namespace cannot tell them apart.
    """
    mine = {0, os.geteuid()}
    return frozenset(mine if in_initial_user_namespace() else mine | {_OVERFLOW})


def named(uid: int) -> str:
    """Write a user as errors do."""
    return "root" if uid == 0 else f"user {uid}"


def writable_by_others(status: os.stat_result) -> bool:
    """Say whether somebody beside the owner may change it. A private group is nobody."""
    mode = stat.S_IMODE(status.st_mode)
    return bool(
        mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _is_private(status.st_gid, status.st_uid))
    )


def distrust(status: os.stat_result) -> str | None:
    """Say why a file is not to be believed, what was expected included; None if it is."""
    if stat.S_ISCHR(status.st_mode):  # /dev/null: what is written there is not what is read
        return None
    if status.st_uid not in believed():
        expected = " or ".join(dict.fromkeys((named(os.geteuid()), "root")))
        return f"belongs to {named(status.st_uid)} (expected {expected}; chown it)"
    if writable_by_others(status):
        mode = stat.S_IMODE(status.st_mode)
        wanted = mode & ~0o022
        return f"others can write to it, mode {mode:04o} (expected {wanted:04o}; read it, then chmod go-w)"
    return None


def way(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield each directory and link that the kernel passes on its way to the absolute *path*, and that one.

    Ends at the first name that is not there. Raises OSError.
    """
    here, waiting, links = "/", path.split("/")[::-1], 0
    yield here, os.stat(here)
    while waiting:
        name = waiting.pop()
        if name in ("", ".", ".."):
            here = os.path.dirname(here) if name == ".." else here
            continue
        place = os.path.join(here, name)
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            return
        yield place, status
        if not stat.S_ISLNK(status.st_mode):
            here = place
            continue
        links += 1
        if links > _LINKS_MAX:
            raise OSError(ELOOP, os.strerror(ELOOP), path)
        target = os.readlink(place)
        waiting += target.split("/")[::-1]
        here = "/" if target.startswith("/") else here


def changeable(path: str, users: frozenset[int], itself: os.stat_result | None = None) -> str | None:
    """Say which part of the way to *path*, *itself* excepted, others than *users* can replace; None if none.

    Who may write to a directory by its group is taken to be chosen by its owner. Raises OSError.
    """
    shared = False
    for place, status in way(path):
        if itself is not None and os.path.samestat(status, itself):
            continue
        is_link = stat.S_ISLNK(status.st_mode)
        if status.st_uid not in users and (shared or not is_link):
            return f"{place} on the way to it belongs to {named(status.st_uid)}"
        if not is_link:
            shared = bool(status.st_mode & stat.S_IWOTH)
            if shared and not status.st_mode & stat.S_ISVTX:
                mode = stat.S_IMODE(status.st_mode)
                return f"anybody can write to {place} on the way to it, mode {mode:04o}"
    return None


def entered_by_others(path: str) -> bool:
    """Say whether users beside the owners can reach what is in the directory *path*. Raises OSError."""
    return all(status.st_mode & stat.S_IXOTH for _, status in way(path) if stat.S_ISDIR(status.st_mode))


def _is_private(gid: int, uid: int) -> bool:
    """Say whether a group is the one that its user is alone in, as distributions make them."""
    with contextlib.suppress(KeyError):
        user, group = pwd.getpwuid(uid), grp.getgrgid(gid)
        return user.pw_gid == gid and user.pw_name == group.gr_name and set(group.gr_mem) <= {user.pw_name}
    return False
