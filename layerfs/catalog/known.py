"""Which manifest names which layer and stack: what turns a digest or an id back into an image to fetch.

Filled by entering an image or following its links, and on demand from the refs of the store: nothing is read
before a name is asked for that nobody has entered.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from layerfs.catalog.documents import DocumentReader, ImageDocuments
from layerfs.catalog.places import ImagePlace, LayerPlace, StackPlace
from layerfs.catalog.views import KnownViews
from layerfs.errors import ImageError, LayerfsError, NotInStore
from layerfs.needs import BlobNeed, DocumentNeed, LayersNeed, Need
from layerfs.oci import Digest, Image, Index, Manifest, Platform, Repository, documents_below, stack_digest
from layerfs.oci.image import ImageLayer
from layerfs.store import ImageStorage
from layerfs.store.scratch import all_scratches

log = logging.getLogger(__name__)

_RESCAN_COST: Final = 10
"""A scan of the refs that took t seconds is not repeated for 10 t: so names that nobody knows cost little."""


class KnownImages:
    """An index of the manifests that were seen. Not thread-safe."""

    def __init__(self, storage: ImageStorage, platform: Platform) -> None:
        self._storage = storage
        self.documents = DocumentReader(storage, platform, leave_large=True)
        self._layers: dict[Digest, LayerPlace] = {}
        self._layer_ids: dict[str, Digest] = {}
        self._without_id: list[Digest] = []
        """Layers that `_layer_ids` lacks so far: ids cost more than all else in a scan."""
        self._stacks: dict[str, StackPlace] = {}
        self.views = KnownViews(self._scan, self._image, storage.lazy.indexes.names)
        """Lazy layers, and stacks that have some."""
        self._seen: set[tuple[Repository, Digest]] = set()
        self._no_scan_before = 0.0

    def enter(self, repository: Repository, digest: Digest) -> ImageDocuments | DocumentNeed:
        """Return what is known of an image, and take in which layers they name."""
        found = self.documents.read(repository, digest)
        if isinstance(found, ImageDocuments) and found.manifest is not None:
            self._add(repository, found.manifest)
        return found

    def prefer(self, repository: Repository, image: Image, layers: Iterable[ImageLayer]) -> None:
        """Fetch *layers* for this image from now on: it is the one that somebody came from.

        Other images that have them may be out of reach, or may lie about them.
        """
        source = ImagePlace(repository, image.manifest.digest)
        for layer in layers:
            self._layers[layer.digest] = place = LayerPlace(source, layer.number)
            self.views.prefer(layer.key, place)

    def prefer_stack(self, repository: Repository, image: Image) -> None:
        """Fetch the stack of *image*, and each layer of it, for this image from now on."""
        source = ImagePlace(repository, image.manifest.digest)
        digests = tuple(layer.digest for layer in image.layers)
        self._stacks[image.stack.short_id] = StackPlace(source, digests)
        self.views.prefer_stack(image, source)
        self.prefer(repository, image, image.layers)

    def _add(self, repository: Repository, manifest: Manifest) -> None:
        if not manifest.is_image:
            return
        source = ImagePlace(repository, manifest.digest)
        digests = tuple(layer.digest for layer in manifest.layers)
        for number, digest in enumerate(digests):
            if digest not in self._layers:
                self._without_id.append(digest)
                self._layers[digest] = LayerPlace(source, number)
        self._stacks.setdefault(stack_digest(digests).short_id, StackPlace(source, digests))
        self.views.add(source, manifest)

    def knows_layer(self, digest: Digest) -> bool:
        """Say whether a known manifest names *digest*."""
        if digest not in self._layers:
            self._scan()
        return digest in self._layers

    def layer_of_id(self, id_: str) -> Digest | None:
        """Return the layer whose short id is *id_*."""
        found = self._layer_of_known_id(id_)
        if found is None:
            self._scan()
            found = self._layer_of_known_id(id_)
        return found

    def _layer_of_known_id(self, id_: str) -> Digest | None:
        while self._without_id:
            digest = self._without_id.pop()
            self._layer_ids[digest.short_id] = digest
        return self._layer_ids.get(id_)

    def knows_stack(self, id_: str) -> bool:
        """Say whether *id_* is the short id of a known image's stack."""
        if id_ not in self._stacks:
            self._scan()
        return id_ in self._stacks

    def stack_ids(self) -> list[str]:
        """Return the short ids of all known stacks, those of the refs among them."""
        self._scan()
        return list(self._stacks)

    def layer(self, digest: Digest) -> tuple[LayerPlace, Image] | DocumentNeed | None:
        """Return an image that has the layer *digest*, and where in it; None if no known one has."""
        if not self.knows_layer(digest):
            return None
        source = self._layers[digest]
        image = self._image(source.image)
        return image if isinstance(image, DocumentNeed) else (source, image)

    def blob_size(self, digest: Digest) -> int:
        """Return what the manifest that names *digest* says of its size, 0 if none is known."""
        source = self._layers.get(digest)
        manifest = None if source is None else self.documents.document(source.image.manifest)
        return manifest.layers[source.number].size if source and isinstance(manifest, Manifest) else 0

    def stack(self, id_: str) -> tuple[Repository, Image] | DocumentNeed:
        """Return the image whose stack is the known *id_*. Raises StoreError, ImageError."""
        source = self._stacks[id_].image
        image = self._image(source)
        return image if isinstance(image, DocumentNeed) else (source.repository, image)

    def stack_layers(self, id_: str) -> tuple[Digest, ...]:
        """Return the layers of the known stack *id_*, base first."""
        return self._stacks[id_].layers

    def layer_need(self, digest: Digest) -> Need:
        """Return the need for a layer that is not extracted. Raises NotInStore if no image names it."""
        found = self._layer_or_raise(digest)
        if isinstance(found, DocumentNeed):
            return found
        source, image = found
        return LayersNeed(source.image.repository, image, (source.number,))

    def blob_need(self, digest: Digest) -> Need:
        """Return the need for a compressed blob. Raises NotInStore if no image names it."""
        found = self._layer_or_raise(digest)
        if isinstance(found, DocumentNeed):
            return found
        source, image = found
        return BlobNeed(source.image.repository, image.layers[source.number].descriptor)

    def _layer_or_raise(self, digest: Digest) -> tuple[LayerPlace, Image] | DocumentNeed:
        found = self.layer(digest)
        if found is None:
            raise NotInStore(f"layer {digest}: no known image names it; enter an image that has it first")
        return found

    def _image(self, source: ImagePlace) -> Image | DocumentNeed:
        documents = self.documents.read(source.repository, source.manifest)
        if isinstance(documents, DocumentNeed):
            return documents
        if documents.image is None:
            assert documents.problem is not None
            raise documents.problem
        return documents.image

    # Refs

    def _scan(self) -> None:
        """Take in the manifests that refs name, or lazy overlays, and the store has; not if it just did."""
        started = time.monotonic()
        if started >= self._no_scan_before:
            for repository, digest in self._ref_targets():
                self._take_in(repository, digest)
            ended = time.monotonic()
            self._no_scan_before = ended + _RESCAN_COST * (ended - started)

    def _ref_targets(self) -> Iterator[tuple[Repository, Digest]]:
        named = ((name.repository, entry.digest) for name, entry in self._storage.refs.all())
        used = (image for one in all_scratches(self._storage.images_dir) if (image := one.image()))
        for target in chain(named, used):
            if target not in self._seen:
                yield target

    def _take_in(self, repository: Repository, digest: Digest) -> None:
        def load(each: Digest) -> Manifest | Index | None:
            try:
                document = self.documents.document(each)
            except LayerfsError as exc:
                log.warning("%s@%s: skipped: %s", repository, each, exc)
                if isinstance(exc, ImageError):  # what is wrong with the disk may pass
                    self._seen.add((repository, each))
                return None
            if document is not None:  # else a tag that was resolved and never entered; later it may be there
                self._seen.add((repository, each))
            return document

        for document in documents_below(digest, load):
            if isinstance(document, Manifest):
                self._add(repository, document)
