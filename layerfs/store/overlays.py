"""The overlays that ``layerfs overlay`` made, as the table of mounts of this namespace shows them."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from layerfs.errors import InvalidDigest
from layerfs.host.mounts import Mount
from layerfs.host.overlay import SOURCE
from layerfs.oci import Digest
from layerfs.store.layout import COVERS, OVERLAYS
from layerfs.store.usage import lower_directories


class OverlayMount(msgspec.Struct, frozen=True):
    """One overlay of ours: what its lower directories and its options say."""

    point: bytes
    device: tuple[int, int]
    store: Path | None
    """The store that its layers are in; None if no lower directory looks like one of a store."""
    stack: Digest | None
    """The digest of the stack (`oci.stack_digest`) that its cover is named by."""
    writable: bool
    scratch: Path | None
    """The directory in the store that it writes into."""

    @classmethod
    def of(cls, mount: Mount) -> "OverlayMount | None":
        """Read a mount; None if it is no overlay of ours."""
        if (mount.fstype, mount.source) != (b"overlay", SOURCE):
            return None
        store, stack = _stack(lower_directories(mount))
        upper = next((Path(os.fsdecode(value)) for value in _values(mount, b"upperdir")), None)
        scratch = upper.parent if upper is not None and upper.parent.parent.name == OVERLAYS else None
        return cls(mount.point, mount.device, store, stack, upper is not None, scratch)


def _values(mount: Mount, wanted: bytes) -> Iterable[bytes]:
    for option in mount.super_options:
        name, _, value = option.partition(b"=")
        if name == wanted:
            yield value


def _stack(lowers: Iterable[bytes]) -> tuple[Path | None, Digest | None]:
    """Return the store and the stack that the cover among *lowers* names."""
    for lower in lowers:
        path = Path(os.fsdecode(lower))
        if path.parent.name == COVERS:
            with suppress(InvalidDigest):
                return path.parent.parent, Digest.from_name(path.name)
    return None, None
