"""A provider for lazy layers that has them in memory: it meets needs as a registry would, and counts them."""

import gzip
from dataclasses import dataclass, field

import msgspec

from layerfs.layer.toc import Piece
from layerfs.needs import FileNeed, LayersNeed, Need, TocNeed
from layerfs.oci import Digest
from layerfs.view.nodes import Node
from tests.support.tocs import LazyLayer
from tests.view.scene import Scene


@dataclass
class Provider:
    """Whoever meets the needs of one scene."""

    scene: Scene
    layers: tuple[LazyLayer, ...]
    met: list[Need] = field(default_factory=list)

    def meet(self, need: Need) -> None:
        """Have what *need* says in the store."""
        self.met.append(need)
        match need:
            case TocNeed():
                for number in need.numbers:
                    descriptor = need.image.layers[number].descriptor
                    layer = self._layer(str(descriptor.digest))
                    self.make_skeleton(layer)
            case FileNeed():
                self._fetch(self._layer(str(need.image.layers[need.number].digest)), need)
            case LayersNeed():
                for number in need.numbers:
                    self.extract(self._layer(str(need.image.layers[number].digest)))
            case _:
                raise AssertionError(f"nobody meets {need}")

    def opened(self, node: Node) -> object:
        """Open a file as the edge does: what it needs is met, and it is asked again."""
        found: object = node.open()
        while isinstance(found, Need):
            self.meet(found)
            found = node.open()
        return found

    def make_skeleton(self, layer: LazyLayer, blob: Digest | None = None) -> None:
        """Have the skeleton of *layer*, made for *blob* if that is given."""
        lazy = self.scene.storage.lazy
        with lazy.stage_toc(layer.place.digest) as staged:
            staged.write(layer.toc)
            place = layer.blob_place
            if blob is not None:
                place = msgspec.structs.replace(place, blob=str(blob))
            lazy.make_skeleton(staged, place)

    def extract(self, layer: LazyLayer) -> None:
        """Have *layer* whole."""
        storage = self.scene.storage
        with storage.stage_layer_download(layer.digest, len(layer.blob)) as staged:
            staged.write(layer.blob[staged.offset :])
            staged.commit()
        storage.extract_layer(layer.digest, storage.layer_tarball_path(layer.digest))

    def _fetch(self, layer: LazyLayer, need: FileNeed) -> None:
        lazy = self.scene.storage.lazy
        content = lazy.content(need.toc, need.id)
        with lazy.objects.stage(content) as staged:
            for piece in content.pieces:
                staged.write(piece, decoded(layer, piece))
            staged.commit()

    def _layer(self, digest: str) -> LazyLayer:
        return next(layer for layer in self.layers if str(layer.digest) == digest)


def decoded(layer: LazyLayer, piece: Piece) -> bytes:
    """Return the bytes of a piece."""
    return gzip.decompress(layer.blob[piece.offset : piece.end])[piece.skip : piece.skip + piece.size]
