"""Removes what it can from a store, again and again: ``python -m tests.attacks.remover STORE SEED``.

Prints at the end how often that was possible and how often it was refused.
"""

import random
import signal
import sys
from contextlib import suppress
from pathlib import Path

from layerfs.errors import StoreError
from layerfs.oci import Digest
from layerfs.store import ImageStorage


class _Over(BaseException):
    """Somebody asked us to end."""


def _end(*_: object) -> None:
    raise _Over


def main() -> None:
    """Remove until SIGTERM comes."""
    store, seed = Path(sys.argv[1]), sys.argv[2]
    choose, removed, refused = random.Random(seed), 0, 0
    signal.signal(signal.SIGTERM, _end)
    with suppress(_Over), ImageStorage(store) as storage:
        while True:
            names = [path.stem for path in (store / "extracted").glob("*.json")]
            for name in choose.sample(names, min(2, len(names))):
                digest = Digest.from_name(name)
                remove = choose.choice((storage.remove_layer, storage.discard_layer))
                try:
                    with storage.lock(digest):
                        removed += bool(remove(digest))
                except StoreError:  # in use
                    refused += 1
            storage.sweep(max_age=0)
    sys.stdout.write(f"{removed} {refused}\n")


if __name__ == "__main__":
    main()
