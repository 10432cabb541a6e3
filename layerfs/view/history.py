"""``history`` of an image as a file: written anew only when it says something else, not for each stat."""

from collections.abc import Callable

from layerfs.catalog.state import layer_status, why_not_lazy
from layerfs.oci import Image
from layerfs.oci.image import ImageLayer
from layerfs.store import ImageStorage
from layerfs.view.texts import history_text, state_text


class HistoryText:
    """The text of one image, kept with what it tells of each layer; *why_whole* says why one is not lazy."""

    def __init__(self, storage: ImageStorage, image: Image, why_whole: Callable[[ImageLayer], str]) -> None:
        self._storage = storage
        self._image = image
        self._why_whole = why_whole
        self._told: list[tuple[str, str]] = []
        self._text = b""

    def __call__(self) -> bytes:
        """Return the text as of now."""
        layers, count = self._image.layers, self._storage.lazy.last_count
        told = [
            (
                state_text(layer_status(self._storage, layer.key, count)),
                why_not_lazy(layer, self._why_whole(layer)),
            )
            for layer in layers
        ]
        if told != self._told or not self._text:
            states = {layer.digest: state for layer, (state, _) in zip(layers, told, strict=True)}
            self._text = history_text(self._image, states.__getitem__, lambda layer: told[layer.number][1])
            self._told = told
        return self._text
