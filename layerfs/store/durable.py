"""Trees that a loss of power cannot take: one syncfs for all that are pending. Called by `storage`."""

import logging
from collections.abc import Sequence

from layerfs.errors import StoreError
from layerfs.layer.record import LayerRecord
from layerfs.store.filesystem import Filesystem
from layerfs.store.records import CoverRecord
from layerfs.store.trees import Pending, TreeShelf

log = logging.getLogger(__name__)

Shelf = TreeShelf[LayerRecord] | TreeShelf[CoverRecord]


def settle(filesystem: Filesystem, shelves: Sequence[Shelf]) -> int:
    """Have all pending trees of *shelves* on the disk, and their records say so; return how many they were.

    Raises StoreError. Trees that were begun before the disk lost something are not believed any more.
    """
    pending = _pending(shelves)
    if not pending:
        return 0
    try:
        filesystem.sync()
    finally:
        for shelf, one in _pending(shelves):  # anew: some were published meanwhile
            if one.losses != filesystem.losses:
                _doubt(shelf, one)
    return sum(shelf.settle(one) for shelf, one in pending if one.losses == filesystem.losses)


def _doubt(shelf: Shelf, one: Pending) -> None:
    try:
        shelf.doubt(one)
    except StoreError as exc:  # the next call tries again
        log.warning("%s: what the disk may have lost of it cannot be taken away now: %s", one.digest, exc)


def _pending(shelves: Sequence[Shelf]) -> list[tuple[Shelf, Pending]]:
    return [(shelf, one) for shelf in shelves for one in shelf.pending()]
