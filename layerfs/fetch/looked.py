"""Which layers were looked at before they were here whole: remembered for whoever asks what a daemon did."""

from typing import Final

from layerfs.needs import FileNeed, TocNeed
from layerfs.oci import Repository
from layerfs.oci.image import ImageLayer, LayerKey

_MOST: Final = 100


class LatestLooks:
    """The layers of the last needs, the latest last."""

    def __init__(self) -> None:
        self._layers: dict[LayerKey, tuple[Repository, ImageLayer]] = {}

    def note(self, need: TocNeed | FileNeed) -> None:
        """Take in that somebody has *need*."""
        for number in need.numbers if isinstance(need, TocNeed) else (need.number,):
            layer = need.image.layers[number]
            self._layers.pop(layer.key, None)
            self._layers[layer.key] = need.repository, layer
            if len(self._layers) > _MOST:
                del self._layers[next(iter(self._layers))]

    def latest(self) -> list[tuple[Repository, ImageLayer]]:
        """Return them, each with where it came from last."""
        return list(self._layers.values())
