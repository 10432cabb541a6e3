"""What this kernel lets this user mount, found out by mounting it. Nothing stays mounted."""

import os
import struct
import subprocess
from pathlib import Path
from typing import Final

from layerfs.errors import MountError
from layerfs.host.libc import call
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.overlay import Overlay, mount_overlay

_FUSE: Final = "/dev/fuse"
_MNT_DETACH: Final = 2
_HEADER: Final = 40
"""sizeof(struct fuse_in_header); struct fuse_init_in follows, its major and minor first (linux/fuse.h)."""
_SECONDS: Final = 10.0

_IN_NAMESPACE: Final = (
    'mount -t tmpfs none "$1" && cd "$1" && mkdir a b m && : >a/file && '
    "mount -t overlay -o userxattr,lowerdir=a:b overlay m && test -e m/file"
)


def fuse_version(scratch: Path) -> tuple[int, int]:
    """Return the version of the FUSE protocol that the kernel speaks. For root. Raises OSError.

    *scratch* is an empty directory. The kernel says its version first, so no daemon has to answer.
    """
    fd = os.open(_FUSE, os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={fd},rootmode=40000,user_id=0,group_id=0"
        call("mount", b"layerfs", os.fsencode(scratch), b"fuse", 0, options.encode())
        try:
            major, minor = struct.unpack_from("=II", os.read(fd, 1 << 17), _HEADER)
        finally:
            call("umount2", os.fsencode(scratch), _MNT_DETACH)
    finally:
        os.close(fd)
    return major, minor


def overlay_refusal(scratch: Path) -> str:
    """Say why no overlay can be mounted in *scratch*, an empty directory; empty if one can."""
    upper, lower, merged = (scratch / name for name in ("upper", "lower", "merged"))
    try:
        for directory in (upper, lower, merged):
            directory.mkdir()
        with Mountpoint.open(merged) as target:
            mount_overlay(Overlay([os.fsencode(upper), os.fsencode(lower)]), target)
            target.unmount()
    except MountError as exc:
        return str(exc)
    except OSError as exc:
        return f"{exc.filename}: {exc.strerror}"
    return ""


def namespace_refusal(scratch: Path) -> str:
    """Say why no overlay can be mounted in a user namespace of one's own; empty if one can.

    *scratch* is an empty directory; what is mounted there is seen in that namespace alone.
    """
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        _IN_NAMESPACE,
        "sh",
        str(scratch),
    ]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    except FileNotFoundError:
        return "unshare is not installed (package util-linux)"
    except subprocess.TimeoutExpired:
        return f"no answer within {_SECONDS:g} s"
    if not done.returncode:
        return ""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return said[0] if said else f"it failed with status {done.returncode}"
