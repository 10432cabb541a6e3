"""Which images have lazy layers, and what is needed of them: by what they are shown as.

What a lazy layer is shown as follows from its blob and from the TOC that a manifest claims for that
(`layerfs.oci.image.LayerKey`), so two images that claim different ones never meet.
"""

from collections.abc import Callable, Container
from typing import Final

import msgspec

from layerfs.catalog.places import ImagePlace, LayerPlace, ViewPlace
from layerfs.needs import DocumentNeed, FileNeed, LayersNeed, Need, TocNeed, UnreadNeed
from layerfs.oci import Digest, Image, Manifest, Repository
from layerfs.oci.image import LayerKey, view_digest
from layerfs.oci.toc import usable_place

ImageOf = Callable[[ImagePlace], Image | DocumentNeed]
"""Reads the documents of an image. Raises StoreError, ImageError."""

NamesObject = Callable[[Digest, str], bool | None]
"""Says whether a TOC names an object, as far as its skeleton is here; None if nobody has read that yet."""

_PLACES_MAX: Final = 4
"""Repositories from which one layer may be fetched."""
_TRIED_MAX: Final = 16
"""Layers and repositories that are tried for one object."""


class KnownViews:
    """Those of the manifests that were seen; *scan* takes in those that refs name. Not thread-safe."""

    def __init__(self, scan: Callable[[], None], image: ImageOf, names: NamesObject) -> None:
        self._scan = scan
        self._image = image
        self._names = names
        self._layers: dict[str, tuple[LayerKey, LayerPlace]] = {}
        """By `LayerKey.name`: where it is fetched from."""
        self._elsewhere: dict[str, list[LayerPlace]] = {}
        """Other repositories that have it."""
        self._stacks: dict[str, ViewPlace] = {}
        """By the short id of `view_digest`."""

    def add(self, source: ImagePlace, manifest: Manifest) -> None:
        """Take in the lazy layers of an image."""
        if not any(layer.annotations for layer in manifest.layers):
            return
        keys = []
        for number, layer in enumerate(manifest.layers):
            place = usable_place(layer)
            keys.append(key := LayerKey(layer.digest, None if place is None else place.digest))
            if key.toc is not None:
                found = LayerPlace(source, number)
                if self._layers.setdefault(key.name, (key, found))[1] != found:
                    self._note_elsewhere(key, found)
        if any(key.toc for key in keys):
            self._stacks.setdefault(view_digest(keys).short_id, ViewPlace(source, tuple(keys)))

    def prefer(self, key: LayerKey, place: LayerPlace) -> None:
        """Fetch a layer from *place* from now on."""
        if key.toc is not None:
            before = self._layers.get(key.name)
            self._layers[key.name] = key, place
            if before is not None:
                self._note_elsewhere(key, before[1])

    def _note_elsewhere(self, key: LayerKey, place: LayerPlace) -> None:
        chosen = self._layers[key.name][1].image.repository
        found = [place, *self._elsewhere.get(key.name, ())]
        by_repository = {one.image.repository: one for one in reversed(found)}
        by_repository.pop(chosen, None)
        self._elsewhere[key.name] = list(by_repository.values())[-(_PLACES_MAX - 1) :]

    def prefer_stack(self, image: Image, source: ImagePlace) -> None:
        """Fetch what *image* is shown as from *source* from now on."""
        if image.view != image.stack:
            self._stacks[image.view.short_id] = ViewPlace(source, tuple(layer.key for layer in image.layers))

    def key(self, name: str) -> LayerKey | None:
        """Return the lazy layer that is called *name*; None if no known manifest has it."""
        if name not in self._layers:
            self._scan()
        found = self._layers.get(name)
        return None if found is None else found[0]

    def layer(self, key: LayerKey) -> tuple[LayerPlace, Image] | DocumentNeed:
        """Return an image that has the known layer *key*, and where in it. Raises StoreError, ImageError."""
        _, place = self._layers[key.name]
        image = self._image(place.image)
        return image if isinstance(image, DocumentNeed) else (place, image)

    def repository(self, key: LayerKey) -> Repository:
        """Return where the known layer *key* is fetched from."""
        return self._layers[key.name][1].image.repository

    def toc_need(self, key: LayerKey) -> Need:
        """Return the need for what lists the files of a known layer. Raises StoreError, ImageError."""
        return self._need(key, lambda place, image: TocNeed(place.image.repository, image, (place.number,)))

    def whole_need(self, key: LayerKey) -> Need:
        """Return the need for a known layer, whole. Raises StoreError, ImageError."""
        return self._need(
            key, lambda place, image: LayersNeed(place.image.repository, image, (place.number,))
        )

    def needs_of(self, tocs: Container[Digest]) -> list[Need]:
        """Return the needs for all known layers with one of *tocs*, whole. Raises StoreError, ImageError."""
        self._scan()
        return [self.whole_need(key) for key, _ in list(self._layers.values()) if key.toc and key.toc in tocs]

    def file_need(self, key: LayerKey, id_: str) -> Need:
        """Return the need for an object of a known layer. Raises StoreError, ImageError."""
        toc = key.toc
        assert toc is not None, "it is lazy"
        return self._need(
            key, lambda place, image: FileNeed(place.image.repository, image, place.number, toc, id_)
        )

    def object_need(self, id_: str) -> Need | None:
        """Return the need for an object; None if no TOC of a known layer names it.

        Whoever has it is in it: layers that name it first, then those that may, each from all repositories.
        Raises StoreError, ImageError.
        """
        keys = self._keys_of(id_)
        if not keys:
            self._scan()
            keys = self._keys_of(id_)
        found: list[FileNeed] = []
        documents: DocumentNeed | None = None
        for key, is_sure in keys:
            for place in (self._layers[key.name][1], *self._elsewhere.get(key.name, ())):
                image = self._image(place.image)
                if isinstance(image, UnreadNeed):
                    return image
                if isinstance(image, DocumentNeed):
                    documents = documents or image
                elif key.toc is not None and len(found) < _TRIED_MAX:
                    repository = place.image.repository
                    found.append(FileNeed(repository, image, place.number, key.toc, id_, is_sure))
        if not found:
            return documents
        return msgspec.structs.replace(found[0], others=tuple(found[1:]))

    def _keys_of(self, id_: str) -> list[tuple[LayerKey, bool]]:
        """Return the layers that name an object, and then those that may; with whether they do."""
        said = [(key, self._names(key.toc, id_)) for key, _ in self._layers.values() if key.toc is not None]
        return [(key, True) for key, names in said if names] + [
            (key, False) for key, names in said if names is None
        ]

    def stack_keys(self, id_: str) -> tuple[LayerKey, ...] | None:
        """Return the layers of the stack that is shown as *id_*, base first; None if none is known."""
        if id_ not in self._stacks:
            self._scan()
        found = self._stacks.get(id_)
        return None if found is None else found.keys

    def stack(self, id_: str) -> tuple[Repository, Image] | DocumentNeed:
        """Return the image that is shown as the known *id_*. Raises StoreError, ImageError."""
        source = self._stacks[id_].image
        image = self._image(source)
        return image if isinstance(image, DocumentNeed) else (source.repository, image)

    def _need(self, key: LayerKey, make: Callable[[LayerPlace, Image], Need]) -> Need:
        found = self.layer(key)
        return found if isinstance(found, DocumentNeed) else make(*found)
