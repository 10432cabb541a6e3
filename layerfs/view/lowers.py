"""``lower/<id>``: short links to the directories that overlayfs is given, on native disk where it can be.

A link is there as soon as its id follows from a known manifest; reading it waits for the layer, or for the
whole stack if it is that of a cover.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from layerfs.needs import DocumentNeed, Need, StackNeed
from layerfs.oci import Digest
from layerfs.store.leases import NAMED_SECONDS
from layerfs.view.layers import has_layers, held_layers
from layerfs.view.names import parse_id
from layerfs.view.nodes import Attributes, Node
from layerfs.view.virtual import LINK_MODE, MountContext, VirtualDirectory, VirtualNode

KEY: Final = b"lower"
_KEEP_SECONDS: Final = NAMED_SECONDS / 2
"""Whoever reads a link has at least this long to mount what it names."""


class LowersDirectory(VirtualDirectory):
    """``lower/``."""

    __slots__ = ()

    def lookup(self, name: bytes) -> Node | None:
        """Return the link of a known id."""
        id_ = parse_id(name)
        if id_ is None:
            return None
        known = self.context.known
        digest = known.layer_of_id(id_)
        if digest is None and not known.knows_stack(id_):
            digest = next((one for one in held_layers(self.context.storage) if one.short_id == id_), None)
            if digest is None:
                return None
        return self._stack(id_) if digest is None else self._layer(digest)

    def entries(self) -> Sequence[tuple[bytes, Node]]:
        """List the ids of extracted layers, and of stacks that are complete."""
        found: list[tuple[bytes, Node]] = [
            (digest.short_id.encode("ascii"), self._layer(digest))
            for digest in held_layers(self.context.storage)
        ]
        for id_ in self.context.known.stack_ids():
            link = self._stack(id_)
            if link.is_here():
                found.append((id_.encode("ascii"), link))
        return found

    def _layer(self, digest: Digest) -> "LayerLower":
        context = self.context
        return context.node(_key(digest.short_id), lambda ino: LayerLower(ino, context, digest))

    def _stack(self, id_: str) -> "CoverLower":
        context = self.context
        return context.node(_key(id_), lambda ino: CoverLower(ino, context, id_))


class LayerLower(VirtualNode):
    """The link to one layer's lowerdir."""

    __slots__ = ("_digest",)

    def __init__(self, ino: int, context: MountContext, digest: Digest) -> None:
        super().__init__(ino, context)
        self._digest = digest

    def attributes(self) -> Attributes:
        """Return a link of the target's length, which is known before the target is there."""
        return self.context.attributes(LINK_MODE, len(self._target()))

    def readlink(self) -> bytes | Need:
        """Return the directory; waits for the layer. Raises NotInStore if no known image names it."""
        if self.context.storage.open_layer(self._digest) is None:
            return self.context.known.layer_need(self._digest)
        return self._target()

    def _target(self) -> bytes:
        storage = self.context.storage
        if storage.capabilities.whiteout_devices:
            return os.fsencode(storage.layer_extracted_path(self._digest))
        return b"%s/layers/%s/lower" % (self.context.mountpoint, self._digest.name.encode("ascii"))


class CoverLower(VirtualNode):
    """The link to the cover of a stack; native always, as directories are all that it needs at least."""

    __slots__ = ("_id", "_kept_at")

    def __init__(self, ino: int, context: MountContext, id_: str) -> None:
        super().__init__(ino, context)
        self._id = id_
        self._kept_at = -_KEEP_SECONDS

    def attributes(self) -> Attributes:
        """Return a link of the target's length, which is known before the target is there."""
        size = len(os.fsencode(self.context.storage.images_dir)) + len(b"/covers/sha256-") + 64
        return self.context.attributes(LINK_MODE, size)

    def readlink(self) -> bytes | Need:
        """Return the directory; waits for all layers and the cover. Raises StoreError, ImageError."""
        cover = self._find()
        if cover is not None:
            self._keep()
            cover = self._find()  # again: it may have gone until then
        if cover is not None:
            return os.fsencode(cover)
        found = self.context.known.stack(self._id)
        return found if isinstance(found, DocumentNeed) else StackNeed(*found)

    def is_here(self) -> bool:
        """Say whether reading the link would answer at once."""
        return self._find() is not None

    def _keep(self) -> None:
        """Keep the stack for whoever reads the link, until he has mounted it: overlayfs follows it first."""
        now = time.monotonic()
        if now - self._kept_at >= _KEEP_SECONDS and not self.context.storage.readonly:
            self._kept_at = now
            self.context.storage.leases.name_stack(self.context.known.stack_layers(self._id))

    def _find(self) -> Path | None:
        """Return the cover if it and all layers are there."""
        layers = self.context.known.stack_layers(self._id)
        storage = self.context.storage
        return storage.cover(layers) if has_layers(storage, layers) else None


def _key(id_: str) -> bytes:
    return KEY + b"/" + id_.encode("ascii")
