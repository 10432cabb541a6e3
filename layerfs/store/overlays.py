"""The overlays that ``layerfs overlay`` made, as the table of mounts of this namespace shows them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec

from layerfs.errors import InvalidDigest
from layerfs.host.mounts import Mount, read_mounts
from layerfs.host.overlay import SOURCE
from layerfs.oci import Digest
from layerfs.store.layout import COVERS, EXTRACTED, OVERLAYS, SKELETONS
from layerfs.store.usage import lower_directories


class OverlayMount(msgspec.Struct, frozen=True):
    """One overlay of ours: what its lower directories and its options say."""

    point: bytes
    device: tuple[int, int]
    store: Path | None
    """The store that its layers are in; None if no directory looks like one of a store."""
    layers: tuple[Digest, ...]
    """What names the trees of its layers, topmost first: a blob, or the TOC of a skeleton."""
    tocs: tuple[Digest, ...]
    """Those of them that are TOCs: what is not here of these layers is asked of a mount."""
    others: frozenset[bytes]
    """The lower directories that name no tree of a layer: its cover, and what it asks a mount by."""
    writable: bool
    """Read-only ones may have an upper directory, too (`layerfs.store.scratch`)."""
    scratch: Path | None
    """Its own directory in the store: what it writes into, or the cover of a lazy one."""

    @classmethod
    def of(cls, mount: Mount) -> Self | None:
        """Read a mount; None if it is no overlay of ours."""
        if (mount.fstype, mount.source) != (b"overlay", SOURCE):
            return None
        uppers = [Path(os.fsdecode(upper)) for upper in _uppers(mount)]
        lowers = [Path(os.fsdecode(lower)) for lower in lower_directories(mount)]
        trees = [path for path in lowers if path.parent.name in (EXTRACTED, SKELETONS)]
        scratch = next((path.parent for path in uppers + lowers if path.parent.parent.name == OVERLAYS), None)
        of_store = [path.parent for path in lowers if path.parent.name in (COVERS, EXTRACTED, SKELETONS)]
        return cls(
            mount.point,
            mount.device,
            of_store[0].parent if of_store else None,
            tuple(_digests(trees)),
            tuple(_digests([path for path in trees if path.parent.name == SKELETONS])),
            frozenset(os.fsencode(path) for path in lowers if path not in trees),
            bool(uppers) and b"ro" not in mount.super_options,
            scratch,
        )


def overlays_on(store: Path) -> list[OverlayMount]:
    """Return the overlays of this mount namespace that show layers of *store*. Raises OSError."""
    found = map(OverlayMount.of, read_mounts())
    return [one for one in found if one is not None and one.store is not None and _is_same(one.store, store)]


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # of another root, or gone
        return False


def _uppers(mount: Mount) -> Iterator[bytes]:
    for option in mount.super_options:
        name, _, value = option.partition(b"=")
        if name == b"upperdir":
            yield value


def _digests(trees: list[Path]) -> Iterator[Digest]:
    for path in trees:
        with suppress(InvalidDigest):
            yield Digest.from_name(path.name)
