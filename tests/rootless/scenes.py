"""An image with everything that an ordinary user cannot put on a disk, and how to look at it."""

import dataclasses
import os
import struct
from pathlib import Path
from typing import Final

from tests.support.canary import Snapshot, snapshot
from tests.support.images import (
    BuiltImage,
    chardev,
    directory,
    fifo,
    file,
    hardlink,
    image,
    layer,
    opaque,
    symlink,
    whiteout,
)

CAPABILITY: Final = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)

PRIVILEGED: Final = (
    directory("./", mode=0o700, uid=3),
    directory("plain"), file("plain/file", b"plain"), symlink("plain/link", "file"),
    directory("locked", mode=0, uid=7, gid=8), file("locked/secret", b"secret", mode=0),
    directory("locked/deep", mode=0o500), file("locked/deep/file", b"deep", mode=0o111, uid=70_000),
    file("owned", b"owned", uid=1000, gid=50), hardlink("linked/owned", "owned"),
    hardlink("early", "later"), file("later", b"later", mode=0o2040, uid=1, gid=2),
    file("setuid", b"#!", mode=0o6755), directory("tmp", mode=0o1777), directory("team", mode=0o2770, gid=9),
    chardev("null", 1, 3, mode=0o666), chardev("dev/tty", 5, 0, mode=0o620, gid=5), fifo("pipe", uid=4),
    file("capable", xattrs={"security.capability": CAPABILITY, "user.note": b"kept"}),
    file("trusted", xattrs={"trusted.note": b"for root's eyes"}),
    symlink("link", "owned", uid=8, gid=9, xattrs={"security.note": b"on a link"}),
)  # fmt: skip


def privileged_image() -> BuiltImage:
    """Build an image that ordinary users cannot carry: on top, markers and a second opinion on some."""
    top = (
        directory("plain", uid=11), opaque("plain"), file("plain/new", b"new", mode=0o600, uid=12),
        whiteout("pipe"), whiteout("linked"), file("implied/by/this", gid=13),
    )  # fmt: skip
    return image(layer(*PRIVILEGED), layer(*top))


def look(path: Path) -> Snapshot:
    """Describe a tree of a mount, without the attributes that the kernel shows to real root alone."""
    os.listdir(path)  # before, its root has no attributes of its own
    return {
        name: dataclasses.replace(
            fact, xattrs=tuple(pair for pair in fact.xattrs if not pair[0].startswith("trusted."))
        )
        for name, fact in snapshot(os.path.realpath(path)).items()
    }


def link_counts(path: Path) -> dict[bytes, int]:
    """Return the link count of every entry, by path."""
    top = os.path.realpath(path)
    return {name: os.lstat(os.path.join(os.fsencode(top), name)).st_nlink for name in snapshot(top)}
