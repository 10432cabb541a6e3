"""Where in the images that are known a layer or a stack occurs. Values."""

import msgspec

from layerfs.oci import Digest, Repository
from layerfs.oci.image import LayerKey


class ImagePlace(msgspec.Struct, frozen=True):
    """Where an image can be fetched from."""

    repository: Repository
    manifest: Digest


class LayerPlace(msgspec.Struct, frozen=True):
    """One place in one image where a layer occurs."""

    image: ImagePlace
    number: int


class StackPlace(msgspec.Struct, frozen=True):
    """An image that has a stack, and the layers of the stack, base first."""

    image: ImagePlace
    layers: tuple[Digest, ...]


class ViewPlace(msgspec.Struct, frozen=True):
    """An image with lazy layers, and what decides what they are shown as, base first."""

    image: ImagePlace
    keys: tuple[LayerKey, ...]
