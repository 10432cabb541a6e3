"""Whose store this is, as the file ``owner.json`` in it says, and who may use it.

Decides between owners who must not share a store: root, an ordinary user, root of a user namespace with its
ids. What each writes (owners, devices, names of overlay attributes) the others cannot read back. Only what an
ordinary user wrote any other user can read, as its record says all that matters. Whether the file may be
believed at all is decided before, by `layerfs.store.gate`.
"""

import os
from typing import Any, Final, Self

import msgspec

from layerfs.errors import StoreDamaged, StoreMismatch
from layerfs.host.namespaces import id_mapping, in_initial_user_namespace
from layerfs.host.oserrors import disk_errors
from layerfs.layer.overlayfs import opaque_xattr
from layerfs.layer.record import Identity, OwnerKind
from layerfs.store.disk import read_small, write_durably
from layerfs.store.layout import StoreLayout, staged
from layerfs.store.locks import Locks

STORE_VERSION: Final = 1


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``owner.json``."""

    version: int = STORE_VERSION
    owner: OwnerKind
    uid: int
    whiteout_devices: bool = True
    """Whether trees hold 0:0 devices and overlay attributes, as it was tried last."""
    marker_names: bool = True
    """Whether it takes names that begin with ``.wh.``, as it was tried last."""
    mapping: str = ""
    """Which ids the user namespace has, as `id_mapping` says it; empty outside of one."""
    shared: bool = False
    """Whether its maker has opened the store for other users to read."""
    identity: Identity | None = None
    """That of the store's directory; None in a store of an older layerfs."""

    @classmethod
    def of_this_process(cls) -> Self:
        """Return who a store would belong to that is made now."""
        kind = owner_kind()
        return cls(owner=kind, uid=os.geteuid(), mapping=id_mapping() if kind == "namespace" else "")

    def same(self, other: "Owner") -> bool:
        """Say whether both are one owner."""
        return (self.owner, self.uid, self.mapping) == (other.owner, other.uid, other.mapping)

    def __str__(self) -> str:
        if self.owner == "namespace":
            return f"root of a user namespace with the ids {self.mapping or 'of an older version'}"
        return "root" if self.owner == "root" else f"user {self.uid}"

    @property
    def way_out(self) -> str:
        """What somebody else has to do who wants to use the store."""
        return {
            "root": "run as root",
            "namespace": "enter such a namespace (podman unshare, or unshare -Urm --map-auto)",
            "user": f"run as user {self.uid}",
        }[self.owner]


class Capabilities(msgspec.Struct, frozen=True):
    """Who writes the trees of this store, and in which form."""

    owner: OwnerKind
    whiteout_devices: bool
    """Whether trees hold 0:0 devices and overlay attributes, so that the kernel can use them as they are."""
    opaque_xattr: str
    """``trusted.overlay.opaque`` for root, ``user.overlay.opaque`` for all others."""
    marker_names: bool = True
    """Whether trees hold names that begin with ``.wh.``; else they are `layerfs.layer.escaping`'s."""


def capabilities_of(owner: Owner) -> Capabilities:
    """Return what the trees of *owner* look like."""
    return Capabilities(owner.owner, owner.whiteout_devices, opaque_xattr(owner.owner), owner.marker_names)


def owner_kind() -> OwnerKind:
    """Say as whom this process writes files."""
    if os.geteuid() != 0:
        return "user"
    return "root" if in_initial_user_namespace() else "namespace"


def read_owner(layout: StoreLayout) -> Owner | None:
    """Return what a store says of its owner; None if it does not. Raises StoreDamaged."""
    raw = read_small(layout.owner, 4096)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=Owner)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        _require_known(_version_in(raw), layout)
        raise StoreDamaged(f"{layout.owner}: {exc} (remove the file if the store is yours)") from exc


def require_version(recorded: Owner, layout: StoreLayout) -> None:
    """Raise StoreMismatch for a store of another version."""
    _require_known(recorded.version, layout)


def _version_in(raw: bytes) -> int:
    """Return the version of an ``owner.json`` that no `Owner` can be read of; ours if it says none."""
    try:
        found = msgspec.json.decode(raw, type=dict[str, Any]).get("version", STORE_VERSION)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return STORE_VERSION
    return found if isinstance(found, int) else STORE_VERSION


def _require_known(version: int, layout: StoreLayout) -> None:
    if version != STORE_VERSION:
        whose, way_out = (
            ("a newer", "upgrade layerfs") if version > STORE_VERSION else ("an older", "remove it")
        )
        raise StoreMismatch(
            f"{layout.root}: made by {whose} layerfs, of store version {version} "
            f"(expected {STORE_VERSION}); {way_out}, or use another --store"
        )


def require_owner(recorded: Owner, layout: StoreLayout, *, writable: bool) -> None:
    """Raise StoreMismatch unless this process may use the store."""
    require_version(recorded, layout)
    mine = Owner.of_this_process()
    if recorded.owner == mine.owner == "user" and not writable:
        return
    if not recorded.same(mine):
        raise StoreMismatch(
            f"{layout.root}: made by {recorded}, opened by {mine} "
            f"(expected the same); {recorded.way_out}, or use another --store"
        )


def write_owner(layout: StoreLayout, locks: Locks, owner: Owner) -> None:
    """Keep what is known of the owner. Raises StoreFull, StoreReadOnly, StoreError."""
    temporary = staged(layout.root, "owner", "writing")
    with locks.holding(temporary), disk_errors(f"{layout.owner}: cannot write"):
        write_durably(temporary, layout.owner, msgspec.json.encode(owner) + b"\n")
