"""The tree of one mount, put together.

``images/``, ``layers/``, ``rootfs/``, ``lower/`` and ``.layerfs/``.
"""

import os
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from layerfs.catalog.known import KnownImages
from layerfs.catalog.state import why_whole as manifest_why_whole
from layerfs.oci import Platform, Repository
from layerfs.store import ImageStorage
from layerfs.view import images, layers, lowers, rootfs
from layerfs.view.bell import bell
from layerfs.view.content import LayerTrees
from layerfs.view.inodes import ROOT_INO, InodeTable
from layerfs.view.nodes import Node
from layerfs.view.virtual import PRIVATE_MODE, ChangingText, FixedDirectory, MountContext, WhyWhole


class StatusSource(Protocol):
    """Whoever knows what the daemon is doing; `layerfs.app` has one."""

    def read(self) -> bytes:
        """Return ``status.json`` as of now. Never waits."""

    def events(self) -> bytes:
        """Return ``events.json`` as of now. Never waits."""

    def metrics(self) -> bytes:
        """Return the counts of now in the text format of Prometheus. Never waits."""


class MountTree(msgspec.Struct, frozen=True):
    """What is served."""

    root: Node
    inodes: InodeTable


def build(
    storage: ImageStorage,
    mountpoint: str | bytes | os.PathLike[str],
    platform: Platform,
    status: StatusSource,
    *,
    tag_ttl: float | None = None,
    uid: int | None = None,
    gid: int | None = None,
    lazy: Callable[[Repository], bool] = lambda _: True,
    why_whole: WhyWhole = lambda _, layer: manifest_why_whole(layer),
) -> MountTree:
    """Return the tree of *storage* as it will show at the absolute path *mountpoint*.

    *platform* is what indexes are searched for; *uid* and *gid* own what no disk holds, the daemon's own by
    default. A pinned tag is resolved anew after *tag_ttl* seconds, None for never. *lazy* says whether layers
    of a repository may be shown before they are whole, *why_whole* why a layer of it cannot. Reads nothing of
    the store. Raises ValueError for a relative mountpoint.
    """
    where = os.fsencode(mountpoint)
    if not where.startswith(b"/"):
        raise ValueError(f"mountpoint {where!r} (expected an absolute path)")
    inodes = InodeTable()
    context = MountContext(
        storage=storage,
        mountpoint=where.rstrip(b"/"),
        platform=platform,
        inodes=inodes,
        known=KnownImages(storage, platform),
        trees=LayerTrees(inodes),
        tag_ttl=tag_ttl,
        uid=os.geteuid() if uid is None else uid,
        gid=os.getegid() if gid is None else gid,
        born_ns=time.time_ns(),
        lazy=lazy,
        why_whole=why_whole,
    )
    root = FixedDirectory(ROOT_INO, context, _top(context, status))
    inodes.set_root(root)
    return MountTree(root, inodes)


def _top(context: MountContext, status: StatusSource) -> dict[bytes, Node]:
    about = context.node(
        b".layerfs/status.json", lambda ino: ChangingText(ino, context, status.read, mode=PRIVATE_MODE)
    )
    metrics = context.node(b".layerfs/metrics", lambda ino: ChangingText(ino, context, status.metrics))
    events = context.node(
        b".layerfs/events.json", lambda ino: ChangingText(ino, context, status.events, mode=PRIVATE_MODE)
    )
    entries = {b"status.json": about, b"events.json": events, b"metrics": metrics, b"bell": bell(context)}
    return {
        images.KEY: context.node(images.KEY, lambda ino: images.ImagesDirectory(ino, context)),
        layers.KEY: context.node(layers.KEY, lambda ino: layers.LayersDirectory(ino, context)),
        rootfs.KEY: context.node(rootfs.KEY, lambda ino: rootfs.RootfsDirectory(ino, context)),
        lowers.KEY: context.node(lowers.KEY, lambda ino: lowers.LowersDirectory(ino, context)),
        b".layerfs": context.node(b".layerfs", lambda ino: FixedDirectory(ino, context, entries)),
    }
