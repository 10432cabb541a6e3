"""What ``layerfs status`` says of overlays of ``layerfs overlay``, and of what they left in the store."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from layerfs.cli.opening import open_store
from layerfs.errors import LayerfsError, StoreError
from layerfs.settings import Settings
from layerfs.view.texts import human_size

if TYPE_CHECKING:
    from layerfs.host.mounts import Mount
    from layerfs.host.occupants import Device
    from layerfs.store.here import Here
    from layerfs.store.overlays import OverlayMount
    from layerfs.store.scratch import Scratch


class ScratchSpace(msgspec.Struct, frozen=True):
    """A scratch of a store, and what it takes."""

    path: str
    size: int
    """Bytes of the disk, as du(1) counts them."""

    def __str__(self) -> str:
        return f"{human_size(self.size)} in {self.path}"


class LazyLook(msgspec.Struct, frozen=True):
    """A layer of an overlay that was mounted before it was here."""

    toc: str
    """The digest that names its skeleton."""
    here: "Here"

    def builtins(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        counts: dict[str, Any] = msgspec.to_builtins(self.here)
        return {"toc": self.toc, "state": self._state} | counts

    def __str__(self) -> str:
        here = self.here
        files = (
            f"{here.files} of {here.of_files} files, {human_size(here.bytes)} of {human_size(here.of_bytes)}"
        )
        return f"lazy layer {self.toc}: {self._state}, {files}"

    @property
    def _state(self) -> Literal["toc", "partial", "whole"]:
        if self.here.files == self.here.of_files:
            return "whole"
        return "partial" if self.here.files else "toc"


class OverlayLook(msgspec.Struct, frozen=True):
    """An overlay of this mount namespace."""

    mountpoint: str
    device: "Device"
    store: str
    images: tuple[str, ...]
    """The references of the store that it shows; none if the store has forgotten them, or cannot be read."""
    writable: bool
    scratch: ScratchSpace | None
    """What it has of its own in the store: with ``--rw`` what was written to it."""
    lazy: tuple[LazyLook, ...] = ()
    """What is here of its lazy layers, topmost first."""
    state: Literal["mounted"] = "mounted"

    def builtins(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "kind": "overlay",
            "mountpoint": self.mountpoint,
            "state": self.state,
            "store": self.store,
            "images": list(self.images),
            "writable": self.writable,
            "lazy": [one.builtins() for one in self.lazy],
            "scratch": None if self.scratch is None else msgspec.to_builtins(self.scratch),
        }

    def lines(self) -> list[str]:
        """Return what people read."""
        of = ", ".join(self.images) or "an image that the store has no name of"
        how = ["read-write" if self.writable else "read-only"] + ([str(self.scratch)] if self.scratch else [])
        return [f"{self.mountpoint}: overlay of {of} ({', '.join(how)})", *(f"  {one}" for one in self.lazy)]


class ScratchLook(msgspec.Struct, frozen=True):
    """What an overlay wrote, of which this mount namespace shows none."""

    mountpoint: str
    """Where the overlay was."""
    scratch: ScratchSpace
    user: str
    """Who uses it all the same; empty if it is left over, from before a reboot for instance."""

    device: None = None

    @property
    def state(self) -> Literal["used", "left"]:
        """Whether somebody uses it all the same."""
        return "used" if self.user else "left"

    def builtins(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        about = {"kind": "scratch", "mountpoint": self.mountpoint, "state": self.state}
        return (
            about
            | ({"reason": self.user} if self.user else {})
            | {"scratch": msgspec.to_builtins(self.scratch)}
        )

    def lines(self) -> list[str]:
        """Return what people read."""
        if self.user:
            return [f"{self.mountpoint}: no overlay here, but {self.user}: {self.scratch}"]
        return [
            f"{self.mountpoint}: no overlay any more, but what one wrote: {self.scratch}",
            f"  layerfs overlay --umount {self.mountpoint} removes it, or layerfs gc",
        ]


def overlay_looks(settings: Settings, mounts: "list[Mount]") -> list[OverlayLook | ScratchLook]:
    """Return the overlays among *mounts*, and the scratches of the store and of theirs that belong to none.

    A store that cannot be read is left out.
    """
    from layerfs.store.overlays import OverlayMount
    from layerfs.store.scratch import all_scratches

    overlays = [found for mount in mounts if (found := OverlayMount.of(mount)) is not None]
    stores = dict.fromkeys((settings.store, *(one.store for one in overlays if one.store is not None)))
    scratches: list[Scratch] = []
    for store in stores:
        try:
            scratches += all_scratches(store)
        except StoreError:
            continue
    mounted = {one.scratch for one in overlays}
    left = [one for one in scratches if one.path not in mounted]
    return [*(_overlay_look(settings, one) for one in overlays), *map(_scratch_look, left)]


def _overlay_look(settings: Settings, found: "OverlayMount") -> OverlayLook:
    images, lazy = _contents(settings, found)
    return OverlayLook(
        mountpoint=os.fsdecode(found.point),
        device=found.device,
        store="" if found.store is None else str(found.store),
        images=images,
        writable=found.writable,
        scratch=None if found.scratch is None else _written(found.scratch),
        lazy=lazy,
    )


def _contents(settings: Settings, found: "OverlayMount") -> tuple[tuple[str, ...], tuple[LazyLook, ...]]:
    """Return the references of the images that an overlay shows, and what is here of its lazy layers."""
    from layerfs.catalog.mounted import images_with

    if found.store is None:
        return (), ()
    try:
        with open_store(msgspec.structs.replace(settings, store=found.store), make=False) as storage:
            lazy = tuple(LazyLook(str(toc), storage.lazy.count(toc)) for toc in found.tocs)
            return tuple(map(str, images_with(storage, found.layers))), lazy
    except LayerfsError:
        return (), ()


def _scratch_look(scratch: "Scratch") -> ScratchLook:
    try:
        user = scratch.user()
    except StoreError as exc:
        user = str(exc)
    return ScratchLook(os.fsdecode(scratch.target), _written(scratch.path), user)


def _written(path: Path) -> ScratchSpace:
    from layerfs.store.measure import disk_usage

    return ScratchSpace(str(path), disk_usage(path))
