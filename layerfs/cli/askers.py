"""What ``layerfs umount`` says of lazy overlays that ask the mount for files which are not here yet."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from layerfs.bells import read_status, ring_of
from layerfs.errors import LayerfsError
from layerfs.host.mounts import Mount, read_mounts
from layerfs.host.overlay import SOURCE
from layerfs.view.texts import human_size

if TYPE_CHECKING:
    from layerfs.store.overlays import OverlayMount


class Asker(msgspec.Struct, frozen=True):
    """A lazy overlay, and what of its image is not here."""

    mountpoint: str
    store: str
    files: int | None
    """That are not here; None if the store could not be read."""
    bytes: int | None

    def __str__(self) -> str:
        if self.files is None or self.bytes is None:
            return f"{self.mountpoint}: what is here of it cannot be seen"
        if not self.files:
            return f"{self.mountpoint}: all of it is here"
        return f"{self.mountpoint}: {self.files} files, {human_size(self.bytes)}, are not here"


class Unmounted(msgspec.Struct, frozen=True):
    """What became of a mount, and of those who asked it."""

    mountpoint: str
    askers: tuple[Asker, ...]
    pid: int | None
    """The process that served it; None if it did not say."""
    ended: bool
    """Whether it was told to end (``--force``)."""

    def builtins(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "mountpoint": self.mountpoint,
            "daemon": "goes on" if self.askers and not self.ended else "ends",
            "pid": self.pid,
            "lazy_overlays": [msgspec.to_builtins(one) for one in self.askers],
        }

    def lines(self) -> list[str]:
        """Return what people read; nothing if nobody asked it."""
        if not self.askers:
            return []
        daemon = "its daemon" if self.pid is None else f"its daemon (pid {self.pid})"
        lacking = [one for one in self.askers if one.files]
        if self.ended:
            head = f"{self.mountpoint}: {daemon} ends; lazy overlays are cut off from what is not here:"
        else:
            head = f"{self.mountpoint}: unmounted; {daemon} goes on until these lazy overlays are:"
        stores = dict.fromkeys(one.store for one in lacking)
        ways = [f"  layerfs status --heal --store {store} has the rest here" for store in stores]
        return [head, *(f"  {one}" for one in self.askers), *ways]


def askers_of(mount: Mount) -> tuple[Asker, ...]:
    """Return the lazy overlays of this mount namespace that ask *mount*."""
    overlays = [one for one in read_mounts() if (one.fstype, one.source) == (b"overlay", SOURCE)]
    if not overlays:
        return ()
    from layerfs.store.overlays import OverlayMount
    from layerfs.store.usage import lower_directories

    ring = ring_of(mount.point)
    asking = (OverlayMount.of(one) for one in overlays if ring in lower_directories(one))
    return tuple(_asker(found) for found in asking if found is not None)


def daemon_of(mount: Mount) -> int | None:
    """Return the process that serves *mount*; None if it does not answer."""
    try:
        return read_status(mount).pid
    except (OSError, msgspec.DecodeError, RecursionError):
        return None


def _asker(found: "OverlayMount") -> Asker:
    files, size = _missing(found.store, found) if found.store is not None else (None, None)
    return Asker(os.fsdecode(found.point), str(found.store or ""), files, size)


def _missing(store: Path, found: "OverlayMount") -> tuple[int | None, int | None]:
    from layerfs.store import ImageStorage

    try:
        with ImageStorage(store) as storage:
            here = [storage.lazy.count(toc) for toc in found.tocs]
    except LayerfsError:
        return None, None
    return sum(one.lacking for one in here), sum(one.of_bytes - one.bytes for one in here)
