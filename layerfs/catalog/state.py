"""How much of a layer of an image is here, in the one word that all views and commands say."""

from collections.abc import Callable
from typing import Final, Literal

import msgspec

from layerfs.errors import InvalidDocument
from layerfs.oci import Digest
from layerfs.oci.image import ImageLayer, LayerKey
from layerfs.oci.toc import toc_place
from layerfs.store import ImageStorage
from layerfs.store.here import Here

LayerState = Literal["fetched", "partial", "toc", "absent"]

FETCHED: Final = "fetched"
"""It is whole: its blob, or its directory."""
PARTIAL: Final = "partial"
"""Its files are listed, and some of them are here."""
TOC: Final = "toc"
"""Its files are listed, and none of them is here, or none was counted yet."""
ABSENT: Final = "absent"
_NO_TOC: Final = "no TOC"

Count = Callable[[Digest], Here | None]
"""Says how many of a skeleton's files are here: `LazyLayers.count`, or `last_count` for who may not wait."""


class LayerStatus(msgspec.Struct, frozen=True):
    """The state of one layer."""

    state: LayerState
    here: Here | None = None
    """What is here of a lazy layer's files."""


def layer_status(storage: ImageStorage, key: LayerKey, count: Count) -> LayerStatus:
    """Say how much of a layer the store has; no registry is asked. Raises StoreError if *count* does."""
    if storage.open_layer(key.digest) is not None or storage.open_blob(key.digest) is not None:
        return LayerStatus(FETCHED)
    if key.toc is None or storage.lazy.open_skeleton_of(key.toc, key.digest) is None:
        return LayerStatus(ABSENT)
    here = count(key.toc)
    return LayerStatus(PARTIAL if here is not None and here.files else TOC, here)


def about_lazy(key: LayerKey, status: LayerStatus, why_whole: str) -> dict[str, object]:
    """Return what there is to say of a layer beside its state, as JSON has it.

    *why_whole* says why it is not lazy; empty if it is.
    """
    found: dict[str, object] = {
        "toc": None if key.toc is None else str(key.toc),
        "whole_because": why_whole or None,
    }
    return found if status.here is None else found | {"here": msgspec.structs.asdict(status.here)}


def why_not_lazy(layer: ImageLayer, why: str = "") -> str:
    """Return *why* a layer is not lazy, as a daemon says, if one may wonder: its manifest names a TOC."""
    said = why_whole(layer)
    return "" if said == _NO_TOC else said or why


def why_whole(layer: ImageLayer) -> str:
    """Say why a layer cannot be lazy as far as its manifest says it; empty if it does not.

    A daemon knows more reasons (`layerfs.fetch.lazy`): settings, the store, a registry, what is in the TOC.
    """
    try:
        return _NO_TOC if toc_place(layer.descriptor) is None else ""
    except InvalidDocument as exc:
        return f"its TOC is refused: {exc}"
