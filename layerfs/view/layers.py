"""``layers/``: each layer by its blob digest, in both forms, with its blob and a description.

Any layer that a known manifest names can be entered, only extracted ones are listed.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from layerfs.catalog.places import LayerPlace
from layerfs.catalog.state import about_lazy, layer_status
from layerfs.errors import InvalidDigest, LayerfsError
from layerfs.needs import Need
from layerfs.oci import Digest, Image
from layerfs.oci.image import LayerKey
from layerfs.store import ImageStorage
from layerfs.view import texts
from layerfs.view.lazy import LazyRoot
from layerfs.view.nodes import FOREVER, Attributes, FileContent, Node
from layerfs.view.roots import FORMS, LayerRoot
from layerfs.view.virtual import TEXT_MODE, ChangingText, MountContext, VirtualDirectory, VirtualNode

KEY: Final = b"layers"
_LAZY_NAME: Final = re.compile(rb"sha(256|512)-[0-9a-f]+\.toc-[a-z2-7]{26}")


class LayersDirectory(VirtualDirectory):
    """``layers/``."""

    __slots__ = ()

    def lookup(self, name: bytes) -> Node | None:
        """Return a layer that the store has or a known manifest names."""
        digest = parse_digest_name(name)
        context = self.context
        if digest is None:
            key = context.known.views.key(name.decode("ascii")) if _LAZY_NAME.fullmatch(name) else None
            return None if key is None else lazy_node(context, key)
        if context.storage.open_layer(digest) is None and not context.known.knows_layer(digest):
            return None
        return layer_node(context, digest)

    def entries(self) -> Sequence[tuple[bytes, Node]]:
        """List the extracted layers."""
        context = self.context
        return [
            (digest.name.encode("ascii"), layer_node(context, digest))
            for digest in held_layers(context.storage)
        ]


class LayerNode(VirtualDirectory):
    """``layers/sha256-<hex>/``."""

    __slots__ = ("_digest", "_key")

    def __init__(self, ino: int, context: MountContext, key: bytes, digest: Digest) -> None:
        super().__init__(ino, context)
        self._key = key
        self._digest = digest

    @property
    def negative_timeout(self) -> float:
        """Without end: the names are always the same."""
        return FOREVER

    def lookup(self, name: bytes) -> Node | None:
        """Return one of the four entries."""
        maker = self._makers().get(name)
        return None if maker is None else maker(name)

    def entries(self) -> Sequence[tuple[bytes, Node]]:
        """List the four entries."""
        return [(name, maker(name)) for name, maker in self._makers().items()]

    def _makers(self) -> dict[bytes, Callable[[bytes], Node]]:
        return {**dict.fromkeys(FORMS, self._root), b"blob": self._blob, b"layer.json": self._description}

    def _root(self, form: bytes) -> LayerRoot:
        context, digest = self.context, self._digest
        return context.node(self._below(form), lambda ino: LayerRoot(ino, context, digest, form))

    def _blob(self, name: bytes) -> "Blob":
        context, digest = self.context, self._digest
        return context.node(self._below(name), lambda ino: Blob(ino, context, digest))

    def _description(self, name: bytes) -> ChangingText:
        context, key = self.context, self._described()
        return context.node(
            self._below(name), lambda ino: ChangingText(ino, context, lambda: describe(context, key))
        )

    def _described(self) -> LayerKey:
        return LayerKey(self._digest)

    def _below(self, name: bytes) -> bytes:
        return self._key + b"/" + name


class LazyNode(LayerNode):
    """``layers/sha256-<hex>.toc-<id>/``."""

    __slots__ = ("_layer",)

    def __init__(self, ino: int, context: MountContext, key: bytes, layer: LayerKey) -> None:
        super().__init__(ino, context, key, layer.digest)
        self._layer = layer

    def _described(self) -> LayerKey:
        return self._layer

    def _root(self, form: bytes) -> LazyRoot:
        context, layer = self.context, self._layer
        return context.node(self._below(form), lambda ino: LazyRoot(ino, context, layer, form))


class Blob(VirtualNode):
    """``blob``: the compressed layer as the registry served it, verified."""

    __slots__ = ("_digest",)

    def __init__(self, ino: int, context: MountContext, digest: Digest) -> None:
        super().__init__(ino, context)
        self._digest = digest

    def attributes(self) -> Attributes:
        """Return a file of the blob's size: what is in the store, or what a manifest or record says."""
        return self.context.attributes(TEXT_MODE, self._size())

    def open(self) -> FileContent | Need:
        """Return the file in the store; waits for it. Raises NotInStore if no known image names it."""
        blob = self.context.storage.open_blob(self._digest)
        if blob is None:
            return self.context.known.blob_need(self._digest)
        path = os.fsencode(blob.path)
        directory = self.context.trees.directory(os.path.dirname(path))
        return FileContent(directory.fd, os.path.basename(path), blob.size)

    def _size(self) -> int:
        storage = self.context.storage
        blob = storage.open_blob(self._digest)
        if blob is not None:
            return blob.size
        layer = storage.open_layer(self._digest)
        if layer is not None:
            return layer.record.layer.blob_size
        return self.context.known.blob_size(self._digest)


def describe(context: MountContext, key: LayerKey) -> bytes:
    """Return ``layer.json`` as far as it is known now."""
    storage = context.storage
    place, image = _image_of(context, key)
    layer = storage.open_layer(key.digest)
    described = None if image is None or place is None else image.layers[place.number]
    command = None if image is None or place is None else image.commands()[place.number]
    status = layer_status(storage, key, storage.lazy.last_count)
    why = context.why_whole(place.image.repository, described) if place and described else ""
    return texts.layer_json(
        key.digest,
        state=status.state,
        lazy=about_lazy(key, status, why),
        descriptor=described.descriptor if described else None,
        diff_id=described.diff_id if described else None,
        command=texts.command_text(command),
        extraction=layer.record.layer if layer else None,
    )


def _image_of(context: MountContext, key: LayerKey) -> tuple[LayerPlace | None, Image | None]:
    """Return an image that has the layer, if one is known and its documents are here: nothing waits."""
    try:
        known = context.known
        found = known.layer(key.digest) if key.toc is None else known.views.layer(key)
    except LayerfsError:  # what is wrong with that image is said where it is entered
        return None, None
    return found if isinstance(found, tuple) else (None, None)


def layer_node(context: MountContext, digest: Digest) -> LayerNode:
    """Return the directory of a layer."""
    key = KEY + b"/" + digest.name.encode("ascii")
    return context.node(key, lambda ino: LayerNode(ino, context, key, digest))


def lazy_node(context: MountContext, layer: LayerKey) -> LazyNode:
    """Return the directory of a lazy layer."""
    key = KEY + b"/" + layer.name.encode("ascii")
    return context.node(key, lambda ino: LazyNode(ino, context, key, layer))


def held_layers(storage: ImageStorage) -> Iterator[Digest]:
    """Yield the extracted layers, in order of their names."""
    directory = storage.layer_extracted_path(Digest.of(b"")).parent
    for name in sorted(os.listdir(directory)):
        digest = parse_digest_name(os.fsencode(name))
        if digest is not None and storage.open_layer(digest) is not None:
            yield digest


def has_layers(storage: ImageStorage, layers: Iterable[Digest]) -> bool:
    """Say whether all *layers* are extracted."""
    return all(storage.open_layer(digest) is not None for digest in layers)


def parse_digest_name(name: bytes) -> Digest | None:
    """Read ``sha256-<hex>``; None for any other name, ``sha256:<hex>`` too: a directory has one name."""
    try:
        digest = Digest.from_name(name.decode("ascii"))
    except (UnicodeDecodeError, InvalidDigest):
        return None
    return digest if digest.name.encode("ascii") == name else None
