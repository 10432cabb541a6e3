"""``history`` of an image as a file: written anew only when a layer has come or gone, not for each stat."""

from layerfs.catalog.state import LayerState, layer_status
from layerfs.oci import Image
from layerfs.store import ImageStorage
from layerfs.view.texts import history_text


class HistoryText:
    """The text of one image, kept with the states of layers that it tells."""

    def __init__(self, storage: ImageStorage, image: Image) -> None:
        self._storage = storage
        self._image = image
        self._states: list[LayerState] | None = None
        self._text = b""

    def __call__(self) -> bytes:
        """Return the text as of now."""
        digests = [layer.digest for layer in self._image.layers]
        count = self._storage.lazy.last_count
        states = [layer_status(self._storage, layer.key, count).state for layer in self._image.layers]
        if states != self._states:
            self._text = history_text(self._image, dict(zip(digests, states, strict=True)).__getitem__)
            self._states = states
        return self._text
