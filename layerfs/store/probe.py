"""Whose store this is, and what its filesystem can carry: tried at opening, remembered in the store.

Decides between owners who must not share a store: root, an ordinary user, root of a user namespace with its
ids. What each writes (owners, devices, names of overlay attributes) the others cannot read back. Only what an
ordinary user wrote any other user can read, as its record says all that matters.
"""

import logging
import os
import stat
from pathlib import Path
from typing import Final

import msgspec
import xattr

from layerfs.errors import StoreDamaged, StoreMismatch
from layerfs.host.namespaces import id_mapping, in_initial_user_namespace
from layerfs.host.oserrors import disk_errors
from layerfs.layer.overlayfs import OPAQUE_VALUE, opaque_xattr
from layerfs.layer.record import OwnerKind
from layerfs.oci import Digest
from layerfs.store.disk import read_small, write_durably
from layerfs.store.layout import StoreLayout, staged
from layerfs.store.locks import Locks
from layerfs.store.staging import stage_tree

STORE_VERSION: Final = 1

_PROBE: Final = Digest.of(b"layerfs probe")

log = logging.getLogger(__name__)


class Capabilities(msgspec.Struct, frozen=True):
    """Who writes the trees of this store, and in which form."""

    owner: OwnerKind
    whiteout_devices: bool
    """Whether trees hold 0:0 devices and overlay attributes, so that the kernel can use them as they are."""
    opaque_xattr: str
    """``trusted.overlay.opaque`` for root, ``user.overlay.opaque`` for all others."""


class _OwnerJson(msgspec.Struct, frozen=True, kw_only=True):
    version: int = STORE_VERSION
    owner: OwnerKind
    uid: int
    whiteout_devices: bool
    mapping: str = ""
    """Which ids the user namespace has, as `id_mapping` says it; empty outside of one."""


def owner_kind() -> OwnerKind:
    """Say as whom this process writes files."""
    if os.geteuid() != 0:
        return "user"
    return "root" if in_initial_user_namespace() else "namespace"


def open_capabilities(layout: StoreLayout, locks: Locks, *, writable: bool) -> Capabilities:
    """Check that this process may use the store, and find out what its trees look like.

    Once trees lack the overlay form they keep lacking it, so a "no" is remembered. Raises StoreMismatch,
    StoreDamaged, StoreFull, StoreError.
    """
    owner = owner_kind()
    mapping = id_mapping() if owner == "namespace" else ""
    mine = _OwnerJson(owner=owner, uid=os.geteuid(), whiteout_devices=True, mapping=mapping)
    recorded = _read(layout.owner)
    if recorded is not None:
        _compare(recorded, mine, layout, writable=writable)
    devices = recorded.whiteout_devices if recorded is not None else True
    if writable and devices:
        devices = probe(layout.extracted, locks, owner)
        if not devices:
            log.warning(
                "%s: this filesystem refuses whiteouts or xattrs; lowerdirs will be FUSE", layout.root
            )
    if writable and (recorded is None or recorded.whiteout_devices != devices):
        _write(layout, locks, msgspec.structs.replace(mine, whiteout_devices=devices))
    return Capabilities(owner, devices, opaque_xattr(owner))


def probe(directory: Path, locks: Locks, owner: OwnerKind) -> bool:
    """Try whether *directory* takes whiteouts and the opaque attribute. Raises StoreFull, StoreError."""
    with stage_tree(locks, directory, _PROBE) as tree:
        try:
            os.mknod(tree.path / "whiteout", stat.S_IFCHR, os.makedev(0, 0))
            xattr.setxattr(os.fspath(tree.path), opaque_xattr(owner), OPAQUE_VALUE)
        except OSError as exc:
            log.info("%s: no whiteouts or no overlay attributes: %s", directory, exc)
            return False
    return True


def _read(path: Path) -> _OwnerJson | None:
    raw = read_small(path, 4096)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=_OwnerJson)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise StoreDamaged(f"{path}: {exc} (remove the file if the store is yours)") from exc


def _compare(recorded: _OwnerJson, mine: _OwnerJson, layout: StoreLayout, *, writable: bool) -> None:
    """Raise StoreMismatch unless this process may use the store."""
    if recorded.version != STORE_VERSION:
        raise StoreMismatch(
            f"{layout.root}: store version {recorded.version} (expected {STORE_VERSION}); use another --store"
        )
    if recorded.owner == mine.owner == "user" and not writable:
        return
    if (recorded.owner, recorded.uid, recorded.mapping) != (mine.owner, mine.uid, mine.mapping):
        raise StoreMismatch(
            f"{layout.root}: made by {_describe(recorded)}, opened by {_describe(mine)} "
            f"(expected the same); {_way_out(recorded)}, or use another --store"
        )


def _describe(owner: _OwnerJson) -> str:
    if owner.owner == "namespace":
        return f"root of a user namespace with the ids {owner.mapping or 'of an older version'}"
    return "root" if owner.owner == "root" else f"user {owner.uid}"


def _way_out(recorded: _OwnerJson) -> str:
    return {
        "root": "run as root",
        "namespace": "enter such a namespace (podman unshare, or unshare -Urm --map-auto)",
        "user": f"run as user {recorded.uid}",
    }[recorded.owner]


def _write(layout: StoreLayout, locks: Locks, owner: _OwnerJson) -> None:
    temporary = staged(layout.root, "owner", "writing")
    with locks.holding(temporary), disk_errors(f"{layout.owner}: cannot write"):
        write_durably(temporary, layout.owner, msgspec.json.encode(owner) + b"\n")
