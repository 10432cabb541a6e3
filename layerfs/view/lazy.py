"""Lazy layers in the mount: ``layers/sha256-<hex>.toc-<id>/``, and stacks in ``rootfs/`` that have some.

They have names of their own, because what is shown of them follows from the TOC that an image claims for a
blob, not from the blob alone. Nobody lists them: a walker reads every file, and that would fetch them.

As long as somebody uses what the skeleton shows, it stays; else a layer that is whole is shown as it was
extracted. Decides which of the two it is.
"""

from collections.abc import Callable, Sequence
from typing import Final

from layerfs.layer.paths import join
from layerfs.needs import DocumentNeed, Need, TocNeed
from layerfs.oci.image import LayerKey
from layerfs.store import LayerDir
from layerfs.view.content import LayerTree
from layerfs.view.disk import DiskSource, OpenDirectory
from layerfs.view.nodes import Node
from layerfs.view.presence import Presence, Several
from layerfs.view.roots import FORMS, LayerRoot
from layerfs.view.skeleton import LayerBytes, SkeletonSource, require_same
from layerfs.view.source import LayerSource
from layerfs.view.virtual import MountContext

SKELETON: Final = b"skeleton"
WHOLE: Final = b"whole"
"""As what a lazy layer is shown: two sets of numbers."""


def open_lazy(context: MountContext, key: LayerKey) -> LayerTree | None:
    """Return what a lazy layer is shown by, None if neither its skeleton nor the layer is here.

    Raises InvalidToc if its archive was found to be another than its TOC says; OSError.
    """
    storage = context.storage
    assert key.toc is not None, "it is lazy"
    require_same(storage, key)
    skeleton = storage.lazy.open_skeleton_of(key.toc, key.digest)
    if skeleton is None or context.trees.used(_called(SKELETON, key)) is None:
        whole = storage.open_layer(key.digest)
        # Where the TOC has shown what the files are, the two are compared first.
        if whole is not None and (skeleton is None or storage.lazy.tocs.is_equal(key.toc, key.digest)):
            return _open_whole(context, key, whole)
    if skeleton is None:
        return None
    if not context.lazy(context.known.views.repository(key)):
        whole = storage.open_layer(key.digest)
        return None if whole is None else _open_whole(context, key, whole)
    return _open_skeleton(context, key, skeleton)


def _open_whole(context: MountContext, key: LayerKey, layer: LayerDir) -> LayerTree:
    called = _called(WHOLE, key)

    def source(directory: OpenDirectory, name: bytes) -> LayerSource:
        return DiskSource(directory, name, called)

    def lacking() -> Need | None:
        gone = context.storage.open_layer(key.digest) is None
        return context.known.views.whole_need(key) if gone else None

    return context.trees.open_as(called, layer, source, lacking)


def _open_skeleton(context: MountContext, key: LayerKey, skeleton: LayerDir) -> LayerTree:
    called, owner = _called(SKELETON, key), skeleton.record.layer.owner
    storage, known, toc = context.storage, context.known, skeleton.digest

    def source(directory: OpenDirectory, name: bytes) -> LayerSource:
        files = LayerBytes(storage, key, context.trees.directory, lambda id_: known.views.file_need(key, id_))
        return SkeletonSource(directory, name, called, owner, files)

    def lacking() -> Need | None:
        gone = storage.lazy.open_skeleton_of(toc, key.digest) is None
        return known.views.toc_need(key) if gone else None

    return context.trees.open_as(called, skeleton, source, lacking)


def _called(what: bytes, key: LayerKey) -> bytes:
    return join(what, key.name.encode("ascii"))


class LazyRoot(LayerRoot):
    """``diff/`` or ``lower/`` of a lazy layer."""

    __slots__ = ("_layer", "_tree")

    def __init__(self, ino: int, context: MountContext, key: LayerKey, form: bytes) -> None:
        super().__init__(ino, context, key.digest, form)
        self._layer = key
        self._tree: LayerTree | None = None

    def need(self) -> Need:
        """Return the need for what lists the files of the layer. Raises StoreError, ImageError."""
        return self.context.known.views.toc_need(self._layer)

    def find(self) -> Node | None:
        """Return the root of what the layer is shown by. Raises InvalidToc, OSError."""
        tree = self._tree = open_lazy(self.context, self._layer)
        status = None if tree is None else tree.source.lstat(b"")
        if tree is None or status is None:
            return None
        return FORMS[self._form](self.ino, tree, b"", status)

    def is_here(self) -> bool:
        """Say whether what it was shown by is still there."""
        return self._tree is not None and is_here(self._tree)

    def forgotten(self) -> None:
        """Drop what is on disk."""
        super().forgotten()
        self._tree = None


def is_here(tree: LayerTree) -> bool:
    """Say whether the directory of *tree* is still there."""
    return tree.presence is None or tree.presence.lacking() is None


def presence_of(trees: Sequence[LayerTree]) -> Presence | None:
    """Return what has back those of *trees* that are removed."""
    presences = [tree.presence for tree in trees if tree.presence is not None]
    if not presences:
        return None

    def lacking() -> Need | None:
        return next((need for one in presences if (need := one.lacking()) is not None), None)

    return Presence(Several(one.directory for one in presences), lacking)


def missing_need(context: MountContext, id_: str, open_tree: Callable[[LayerKey], LayerTree | None]) -> Need:
    """Return the need for what is missing of the stack that is shown as *id_*.

    Raises StoreError, ImageError.
    """
    found = context.known.views.stack(id_)
    if isinstance(found, DocumentNeed):
        return found
    repository, image = found
    missing = (layer.number for layer in image.layers if open_tree(layer.key) is None)
    return TocNeed(repository, image, tuple(missing))
