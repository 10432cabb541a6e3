"""Which images of a store an overlay shows, by what its lower directories are called."""

from collections.abc import Sequence
from functools import partial

from layerfs.catalog.documents import held_document
from layerfs.oci import Digest, ImageReference, Manifest, documents_below
from layerfs.oci.toc import usable_place
from layerfs.store import ImageStorage


def images_with(storage: ImageStorage, layers: Sequence[Digest]) -> list[ImageReference]:
    """Return the refs whose image, for some platform, has just these *layers*, topmost first.

    A layer may be named by its TOC, and one that repeats counts where it is topmost. Raises StoreError.
    """
    return [
        name
        for name, entry in storage.refs.all()
        if any(
            isinstance(document, Manifest) and _has(document, layers)
            for document in documents_below(entry.digest, partial(held_document, storage))
        )
    ]


def _has(manifest: Manifest, layers: Sequence[Digest]) -> bool:
    names: dict[Digest, set[Digest]] = {}
    for layer in reversed(manifest.layers):
        place = usable_place(layer)
        names.setdefault(layer.digest, {layer.digest} | ({place.digest} if place else set()))
    return len(names) == len(layers) and all(
        layer in known for layer, known in zip(layers, names.values(), strict=True)
    )
