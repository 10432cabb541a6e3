"""Checks of the store: whether it can be used, what its disk can carry, how much room there is."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from layerfs.doctor.observation import Observation, failure, ok, warning
from layerfs.errors import LayerfsError
from layerfs.host.mounts import filesystem_of
from layerfs.host.stubs import stub_refusal
from layerfs.layer.overlayfs import stub_xattrs
from layerfs.store import ImageStorage
from layerfs.store.scratch import make_scratch

_REMOTE: Final = frozenset({b"nfs", b"nfs4", b"cifs", b"smb3", b"ceph", b"9p", b"lustre", b"gpfs", b"beegfs"})
_GIB: Final = 1 << 30
_FULL: Final = 0.01
_NEARLY: Final = 0.05
"""What part of a disk is free, at most, for it to be full, and nearly so."""


def no_store(path: Path, problem: LayerfsError | None) -> Iterator[Observation]:
    """Say why there is no store at *path*: because of a *problem*, or because nobody has made one yet."""
    if problem is not None:
        yield failure("store", str(problem))
        return
    above = path
    while not above.exists() and above != above.parent:
        above = above.parent
    if os.access(above, os.W_OK | os.X_OK):
        yield ok("store", f"{path}: none yet; the first layerfs pull or mount makes it")
    else:
        yield failure(
            "store", f"{path}: none yet, and {above} may not be written", "set --store or LAYERFS_STORE"
        )
    yield from _room(above)


def store(storage: ImageStorage) -> Iterator[Observation]:
    """Look at a store that could be opened."""
    path = storage.images_dir
    if storage.readonly:
        yield warning("store", f"{path}: may only be read; what is not in it cannot be fetched")
    else:
        yield ok("store", f"{path}: of this user")
    yield from _filesystem(storage)
    yield from _room(path)


def _filesystem(storage: ImageStorage) -> Iterator[Observation]:
    path = storage.images_dir
    kind = filesystem_of(path.stat().st_dev)
    name = "unknown" if kind is None else kind.decode(errors="replace")
    form = storage.capabilities
    if kind in _REMOTE:
        yield warning(
            "store's disk", f"{name}, over the network", "--store on a disk of this machine is faster"
        )
    elif not form.whiteout_devices:
        found = f"{name} refuses whiteouts or attributes: overlays read through FUSE"
        yield warning("store's disk", found, "--store on ext4, xfs or btrfs")
    else:
        yield ok("store's disk", f"{name}; holds whiteouts and attributes, so overlays read natively")
    if os.geteuid() == 0 and not storage.readonly:
        yield from _lazy_containers(storage)


def _lazy_containers(storage: ImageStorage) -> Iterator[Observation]:
    """Try whether a container can start before its image is here, as ``layerfs overlay --lazy`` does."""
    refusal = storage.lazy.problem() or _stub_refusal(storage)
    if refusal:
        yield warning("lazy containers", f"an image has to be here before it is mounted: {refusal}")
    else:
        yield ok("lazy containers", "can start before their image is here")


def _stub_refusal(storage: ImageStorage) -> str:
    scratch = make_scratch(storage.images_dir, b"/nowhere", storage.images_dir)
    try:
        trial = scratch.path / "trial"
        trial.mkdir()
        return stub_refusal(trial, *stub_xattrs(storage.capabilities.owner))
    finally:
        scratch.remove()


def _room(path: Path) -> Iterator[Observation]:
    try:
        disk = os.statvfs(path)
    except OSError as exc:
        yield failure("room", f"{path}: {exc.strerror}")
        return
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    found = f"{free / _GIB:.1f} of {size / _GIB:.1f} GiB free"
    shares = [free / size if size else 1.0]
    if disk.f_files:
        shares.append(disk.f_favail / disk.f_files)
        found += f", {100 * shares[1]:.0f} % of the inodes"
    mend = "layerfs gc --dry-run says what may go"
    if min(shares) < _FULL:
        yield failure("room", found, mend)
    elif min(shares) < _NEARLY:
        yield warning("room", found, mend)
    else:
        yield ok("room", found)
