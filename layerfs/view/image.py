"""The directory of one image, ``<name>@sha256:<hex>``: its documents, texts, and links to its layers.

All of it follows from manifest and config, so only entering the directory may wait, and for those two alone.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from layerfs.catalog.documents import ImageDocuments
from layerfs.layer.overlayfs import lowerdir_option
from layerfs.layer.paths import NAME_MAX
from layerfs.needs import DocumentNeed, Need
from layerfs.oci import Digest, Image, Index, Repository
from layerfs.oci.image import ImageLayer
from layerfs.store import ImageStorage
from layerfs.view import texts
from layerfs.view.history import HistoryText
from layerfs.view.names import image_name
from layerfs.view.nodes import FOREVER, BytesContent, Node
from layerfs.view.virtual import ChangingText, Link, MountContext, Text, VirtualDirectory

LAYER_DIRECTORY: Final = b"layers"
_NO_NAMES: Final = frozenset({b"", b".", b".."})
_WAYS: Final = frozenset({LAYER_DIRECTORY, b"rootfs"})


class DocumentDirectory(VirtualDirectory):
    """A directory whose names follow from documents, and these from a digest."""

    __slots__ = ()

    @property
    def negative_timeout(self) -> float:
        """Without end."""
        return FOREVER


class ImageDirectory(DocumentDirectory):
    """``<name>@sha256:<hex>/``."""

    __slots__ = ("_documents", "_key", "digest", "repository")

    def __init__(
        self, ino: int, context: MountContext, key: bytes, repository: Repository, digest: Digest
    ) -> None:
        super().__init__(ino, context)
        self._key = key
        self.repository = repository
        self.digest = digest
        self._documents: ImageDocuments | None = None

    def lookup(self, name: bytes) -> Node | Need | None:
        """Return an entry; waits for the manifest. Raises ImageError for what the image cannot have."""
        documents = self._enter()
        if isinstance(documents, DocumentNeed):
            return documents.leading_on() if name in _WAYS else documents
        maker = self._makers(documents).get(name)
        if maker is not None:
            return maker(name)
        if documents.problem is not None and name in _IMAGE_PARTS:
            raise documents.problem
        return None

    def entries(self) -> Sequence[tuple[bytes, Node]] | Need:
        """List what the image has; waits for the manifest."""
        documents = self._enter()
        if isinstance(documents, DocumentNeed):
            return documents
        return [(name, maker(name)) for name, maker in self._makers(documents).items()]

    def forgotten(self) -> None:
        """Drop the documents."""
        self._documents = None

    def _enter(self) -> ImageDocuments | DocumentNeed:
        if self._documents is None:
            found = self.context.known.enter(self.repository, self.digest)
            if isinstance(found, DocumentNeed):
                return found
            self._documents = found
        return self._documents

    def _makers(self, documents: ImageDocuments) -> dict[bytes, Callable[[bytes], Node]]:
        makers: dict[bytes, Callable[[bytes], Node]] = {}
        index, manifest, image = documents.index, documents.manifest, documents.image
        created = texts.time_ns(image.config.created) if image is not None else None
        if index is not None:
            makers[b"index.json"] = lambda name: self._text(name, index.raw, created)
            makers[b"platforms"] = lambda name: self._platforms(name, index)
        if manifest is not None:
            makers[b"manifest.json"] = lambda name: self._text(name, manifest.raw, created)
        if image is not None:
            makers |= self._image_makers(image, created)
        return makers

    def _image_makers(self, image: Image, created: int | None) -> dict[bytes, Callable[[bytes], Node]]:
        return {
            b"config.json": lambda name: self._text(name, image.config.raw, created),
            b"history": lambda name: self._changing(name, self._history(image), created),
            b"lowerdir": lambda name: self._lower_text(name, image, self._lowerdir(image), created),
            b"lowerdirs": lambda name: self._lower_text(name, image, self._lowerdirs(image), created),
            LAYER_DIRECTORY: lambda name: self._layers(name, image),
            b"rootfs": lambda name: self._rootfs(name, image),
        }

    # Entries

    def _text(self, name: bytes, data: bytes, created: int | None) -> Text:
        context = self.context
        return context.node(self._below(name), lambda ino: Text(ino, context, data, created))

    def _changing(self, name: bytes, render: Callable[[], bytes], created: int | None) -> ChangingText:
        context = self.context
        return context.node(self._below(name), lambda ino: ChangingText(ino, context, render, created))

    def _history(self, image: Image) -> HistoryText:
        context = self.context
        return HistoryText(context.storage, image, partial(context.why_whole, self.repository))

    def _lower_text(self, name: bytes, image: Image, data: bytes, created: int | None) -> "LowerText":
        context, repository = self.context, self.repository
        return context.node(
            self._below(name), lambda ino: LowerText(ino, context, data, created, repository, image)
        )

    def _lowerdir(self, image: Image) -> bytes:
        return lowerdir_option(texts.lower_paths(self.context.mountpoint, image)) + b"\n"

    def _lowerdirs(self, image: Image) -> bytes:
        return b"".join(path + b"\n" for path in texts.lower_paths(self.context.mountpoint, image))

    def _layers(self, name: bytes, image: Image) -> "ImageLayers":
        context, key = self.context, self._below(name)
        return context.node(key, lambda ino: ImageLayers(ino, context, key, self.repository, image))

    def _rootfs(self, name: bytes, image: Image) -> "StackLink":
        context, repository = self.context, self.repository
        target = to_top(self.repository, 0) + b"rootfs/" + image.view.short_id.encode("ascii")
        return context.node(self._below(name), lambda ino: StackLink(ino, context, target, repository, image))

    def _platforms(self, name: bytes, index: Index) -> "Platforms":
        context, key = self.context, self._below(name)
        return context.node(key, lambda ino: Platforms(ino, context, key, self.repository, index))

    def _below(self, name: bytes) -> bytes:
        return self._key + b"/" + name


_IMAGE_PARTS: Final = frozenset(
    {b"manifest.json", b"config.json", b"history", b"lowerdir", b"lowerdirs", LAYER_DIRECTORY, b"rootfs"}
)


class LowerText(Text):
    """The lowerdirs of an image; who reads them means this image, whoever else has its layers."""

    __slots__ = ("_image", "_repository")

    def __init__(
        self,
        ino: int,
        context: MountContext,
        data: bytes,
        mtime_ns: int | None,
        repository: Repository,
        image: Image,
    ) -> None:
        super().__init__(ino, context, data, mtime_ns)
        self._repository = repository
        self._image = image

    def open(self) -> BytesContent:
        """Return the text."""
        self.context.known.prefer_stack(self._repository, self._image)
        return super().open()


class StackLink(Link):
    """The link to the merged layers of an image: dead for it if it lies about one of them."""

    __slots__ = ("_image", "_repository")

    def __init__(
        self, ino: int, context: MountContext, target: bytes, repository: Repository, image: Image
    ) -> None:
        super().__init__(ino, context, target)
        self._repository = repository
        self._image = image

    def readlink(self) -> bytes | Need:
        """Return the target. Raises DiffIdMismatch if an extracted layer is not what the config claims."""
        for layer in self._image.layers:
            require_diff_id(self.context.storage, layer)
        self.context.known.prefer_stack(self._repository, self._image)
        return super().readlink()


class LayerLink(Link):
    """The link to one layer of an image: dead for it if it lies about the layer."""

    __slots__ = ("_image", "_layer", "_repository")

    def __init__(
        self,
        ino: int,
        context: MountContext,
        target: bytes,
        repository: Repository,
        image: Image,
        layer: ImageLayer,
    ) -> None:
        super().__init__(ino, context, target)
        self._repository = repository
        self._image = image
        self._layer = layer

    def readlink(self) -> bytes | Need:
        """Return the target. Raises DiffIdMismatch if the extracted layer is not what the config claims."""
        require_diff_id(self.context.storage, self._layer)
        self.context.known.prefer(self._repository, self._image, [self._layer])
        return super().readlink()


class ImageLayers(DocumentDirectory):
    """``layers/`` of an image: links ``00``, ``01``, … from the base up."""

    __slots__ = ("_image", "_key", "_repository")

    def __init__(
        self, ino: int, context: MountContext, key: bytes, repository: Repository, image: Image
    ) -> None:
        super().__init__(ino, context)
        self._key = key
        self._repository = repository
        self._image = image

    def lookup(self, name: bytes) -> Node | None:
        """Return the link to one layer."""
        layers = self._image.layers
        if not name.isdigit() or int(name) >= len(layers) or name != self._name(int(name)):
            return None
        return self._link(layers[int(name)])

    def entries(self) -> Sequence[tuple[bytes, Node]]:
        """List a link for each layer."""
        return [(self._name(layer.number), self._link(layer)) for layer in self._image.layers]

    def _name(self, number: int) -> bytes:
        return b"%0*d" % (texts.number_width(len(self._image.layers)), number)

    def _link(self, layer: ImageLayer) -> LayerLink:
        context, repository, image = self.context, self._repository, self._image
        key = self._key + b"/" + self._name(layer.number)
        target = to_top(self._repository, 1) + b"layers/" + layer.key.name.encode("ascii")
        return context.node(key, lambda ino: LayerLink(ino, context, target, repository, image, layer))


class Platforms(DocumentDirectory):
    """``platforms/`` of an index: a link for each platform to the directory of its manifest."""

    __slots__ = ("_by_name", "_key", "_repository")

    def __init__(
        self, ino: int, context: MountContext, key: bytes, repository: Repository, index: Index
    ) -> None:
        super().__init__(ino, context)
        self._key = key
        self._repository = repository
        self._by_name: dict[bytes, Digest] = {}
        for platform, entry in index.platforms().items():
            name = platform.name.encode()  # printable, whatever the index says
            if name not in _NO_NAMES and len(name) <= NAME_MAX:
                self._by_name.setdefault(name, entry.digest)

    def lookup(self, name: bytes) -> Node | None:
        """Return the link to one platform's image."""
        digest = self._by_name.get(name)
        return None if digest is None else self._link(name, digest)

    def entries(self) -> Sequence[tuple[bytes, Node]]:
        """List a link for each platform."""
        return [(name, self._link(name, digest)) for name, digest in self._by_name.items()]

    def _link(self, name: bytes, digest: Digest) -> Link:
        context = self.context
        target = b"../../" + image_name(self._repository, digest)
        return context.node(self._key + b"/" + name, lambda ino: Link(ino, context, target))


def to_top(repository: Repository, depth: int) -> bytes:
    """Return the relative path to the mountpoint from *depth* directories below an image's directory."""
    return b"../" * (depth + 2 + len(repository.path.split("/")))


def require_diff_id(storage: ImageStorage, layer: ImageLayer) -> None:
    """Raise DiffIdMismatch if *layer* is extracted and the image claims another diff_id for it."""
    found = storage.open_layer(layer.digest)
    if found is not None:
        layer.require(found.record.layer.diff_ids)
