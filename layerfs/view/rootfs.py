"""``rootfs/<id>``: the roots of merged stacks (`layerfs.view.merged`), and what they wait for."""

from collections.abc import Sequence
from typing import Final

from layerfs.needs import DocumentNeed, LayersNeed, Need
from layerfs.oci.image import LayerKey
from layerfs.view.content import LayerTree
from layerfs.view.layers import has_layers
from layerfs.view.lazy import is_here, missing_need, open_lazy, presence_of
from layerfs.view.merged import Stack
from layerfs.view.names import parse_id
from layerfs.view.nodes import Node
from layerfs.view.presence import Presence
from layerfs.view.roots import ContentRoot, open_tree
from layerfs.view.virtual import FixedDirectory, MountContext, VirtualDirectory

KEY: Final = b"rootfs"


class RootfsDirectory(VirtualDirectory):
    """``rootfs/``."""

    __slots__ = ()

    def lookup(self, name: bytes) -> Node | None:
        """Return the merged tree of a known stack."""
        id_ = parse_id(name)
        if id_ is None:
            return None
        if self.context.known.knows_stack(id_):
            return self._root(id_)
        keys = self.context.known.views.stack_keys(id_)
        return None if keys is None else self._lazy_root(id_, keys)

    def entries(self) -> Sequence[tuple[bytes, Node]]:
        """List the stacks whose layers are all extracted; none with lazy layers (`layerfs.view.lazy`)."""
        found: list[tuple[bytes, Node]] = []
        for id_ in self.context.known.stack_ids():
            root = self._root(id_)
            if root.is_here():
                found.append((id_.encode("ascii"), root))
        return found

    def _root(self, id_: str) -> "MergedRoot":
        context = self.context
        key = KEY + b"/" + id_.encode("ascii")
        return context.node(key, lambda ino: MergedRoot(ino, context, key, id_))

    def _lazy_root(self, id_: str, keys: Sequence[LayerKey]) -> "LazyMergedRoot":
        context = self.context
        key = KEY + b"/" + id_.encode("ascii")
        return context.node(key, lambda ino: LazyMergedRoot(ino, context, key, id_, keys))


class MergedRoot(ContentRoot):
    """``rootfs/<id>``."""

    __slots__ = ("_id", "_key")

    def __init__(self, ino: int, context: MountContext, key: bytes, id_: str) -> None:
        super().__init__(ino, context)
        self._key = key
        self._id = id_

    def need(self) -> Need:
        """Return the need for the layers that are not extracted. Raises StoreError, ImageError."""
        return _need(self.context, self._id)

    def find(self) -> Node | None:
        """Return the merged root once all layers are extracted. Raises OSError."""
        layers = self.context.known.stack_layers(self._id)
        if not layers:
            return FixedDirectory(self.ino, self.context, {})
        trees = [tree for digest in layers if (tree := open_tree(self.context, digest)) is not None]
        if len(trees) < len(layers):
            return None
        context, id_ = self.context, self._id  # and not the node, which may be forgotten

        def lacking() -> Need | None:
            return None if has_layers(context.storage, layers) else _need(context, id_)

        one = trees[0].presence
        presence = None if one is None else Presence(one.directory, lacking)
        return Stack(self._key, trees, context.inodes, presence).root(self.ino)

    def is_here(self) -> bool:
        """Say whether all layers are extracted."""
        return has_layers(self.context.storage, self.context.known.stack_layers(self._id))


class LazyMergedRoot(ContentRoot):
    """``rootfs/<id>`` of a stack with lazy layers."""

    __slots__ = ("_id", "_key", "_keys", "_trees")

    def __init__(
        self, ino: int, context: MountContext, key: bytes, id_: str, keys: Sequence[LayerKey]
    ) -> None:
        super().__init__(ino, context)
        self._key = key
        self._id = id_
        self._keys = keys
        self._trees: list[LayerTree] = []

    def need(self) -> Need:
        """Return the need for what lists the files of the layers. Raises StoreError, ImageError."""
        return missing_need(self.context, self._id, self._open)

    def find(self) -> Node | None:
        """Return the merged root once something shows each layer. Raises InvalidToc, OSError."""
        trees = [tree for key in self._keys if (tree := self._open(key)) is not None]
        if len(trees) < len(self._keys):
            return None
        self._trees = trees
        return Stack(self._key, trees, self.context.inodes, presence_of(trees)).root(self.ino)

    def is_here(self) -> bool:
        """Say whether what shows the layers is still there."""
        return all(map(is_here, self._trees))

    def forgotten(self) -> None:
        """Drop what is on disk."""
        super().forgotten()
        self._trees = []

    def _open(self, key: LayerKey) -> LayerTree | None:
        return open_tree(self.context, key.digest) if key.toc is None else open_lazy(self.context, key)


def _need(context: MountContext, id_: str) -> Need:
    """Return the need for the layers of a stack that are not extracted. Raises StoreError, ImageError."""
    found = context.known.stack(id_)
    if isinstance(found, DocumentNeed):
        return found
    repository, image = found
    missing = [layer.number for layer in image.layers if context.storage.open_layer(layer.digest) is None]
    return LayersNeed(repository, image, tuple(missing))
