"""Trees that a loss of power cannot take: one syncfs for all that are pending. Called by `storage`."""

from collections.abc import Sequence

from layerfs.errors import StoreError
from layerfs.layer.record import LayerRecord
from layerfs.store.filesystem import Filesystem
from layerfs.store.records import CoverRecord
from layerfs.store.trees import Pending, TreeShelf

Shelf = TreeShelf[LayerRecord] | TreeShelf[CoverRecord]


def settle(filesystem: Filesystem, shelves: Sequence[Shelf]) -> int:
    """Have all pending trees of *shelves* on the disk, and their records say so; return how many they were.

    Raises StoreError. If the disk lost something, no tree that was pending by then is believed any more.
    """
    losses = filesystem.losses
    pending = _pending(shelves)
    if not pending:
        return 0
    try:
        filesystem.sync(losses)
    except StoreError:
        if filesystem.losses != losses:
            for shelf, one in _pending(shelves):  # anew: some were published meanwhile
                shelf.doubt(one)
        raise
    return sum(shelf.settle(one) for shelf, one in pending)


def _pending(shelves: Sequence[Shelf]) -> list[tuple[Shelf, Pending]]:
    return [(shelf, one) for shelf in shelves for one in shelf.pending()]
