"""Whether a layer of an image is here, in the one word that all views and commands say."""

from typing import Final, Literal

from layerfs.oci import Digest
from layerfs.store import ImageStorage

LayerState = Literal["fetched", "absent"]

FETCHED: Final = "fetched"
ABSENT: Final = "absent"


def layer_state(storage: ImageStorage, digest: Digest) -> LayerState:
    """Say whether the store has a layer, as a directory or as a blob: no registry is asked for it."""
    here = storage.open_layer(digest) is not None or storage.open_blob(digest) is not None
    return FETCHED if here else ABSENT
