"""What a mount says of itself, and which one can be asked for files that are not here. No trio, no HTTP."""

import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from layerfs.host.mounts import Mount, read_mounts
from layerfs.host.patience import read_within
from layerfs.status import Events, Status, parse_events, parse_status

BELL: Final = ".layerfs/bell"
"""What of a mount an overlay names, with ``/ring`` and ``/direct`` in it."""
STATUS_SECONDS: Final = 3.0
"""How long a mount may take to answer."""
_RUNTIME: Final = Path("/run/layerfs")
_STATUS: Final = b"/.layerfs/status.json"
_EVENTS: Final = b"/.layerfs/events.json"


def read_status(mount: Mount) -> Status:
    """Return what *mount* says of itself.

    Raises OSError if it is dead or others must not look, TimeoutError if it hangs; DecodeError,
    RecursionError if it is somebody else's.
    """
    return parse_status(read_within(mount.point + _STATUS, STATUS_SECONDS))


def read_events(mount: Mount) -> Events:
    """Return what happened in *mount* lately. Raises as `read_status`."""
    return parse_events(read_within(mount.point + _EVENTS, STATUS_SECONDS))


def bell_directory(store: Path) -> Path:
    """Return where a mount of *store* is made for lazy overlays alone, by root."""
    return _RUNTIME / sha256(os.fsencode(store.resolve())).hexdigest()[:16]


def serves_bells_alone(mountpoint: str) -> bool:
    """Say whether a mount is such a one."""
    return Path(mountpoint).parent == _RUNTIME


def ring_of(point: bytes) -> bytes:
    """Return the directory that an overlay names which asks the mount at *point*."""
    return b"%b/%b/ring" % (point, os.fsencode(BELL))


def bell_mount(store: Path) -> str | None:
    """Return where a layerfs mount of *store* is that answers and fetches; None if there is none."""
    return next((os.fsdecode(point) for point in bell_mounts(store)), None)


def bell_mounts(store: Path) -> Iterator[bytes]:
    """Yield where layerfs mounts of *store* are that answer and fetch.

    Of root's or this user's alone: what a mount answers becomes the content of containers.
    """
    for mount in read_mounts():
        if mount.is_layerfs and mount.root == b"/" and mount.user in (0, os.geteuid()):
            with suppress(OSError, msgspec.DecodeError, RecursionError):  # dead, hanging, or somebody else's
                about = read_status(mount)
                if not about.offline and Path(about.store).samefile(store):
                    yield mount.point
