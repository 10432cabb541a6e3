"""Extractors that start while the rest of a command is still imported, which takes as long.

Must not import trio: whoever needs this has not yet.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from layerfs import naming
from layerfs.errors import LayerfsError
from layerfs.extract.client import ExtractorPool
from layerfs.settings import Settings
from layerfs.store.layout import StoreLayout


@contextmanager
def extractors(*, needed: bool) -> Iterator[ExtractorPool]:
    """Yield extractors for one command, one of which starts now if one is *needed* for certain.

    They stay as long as the command: a thread that ends them would keep `layerfs.registry.http` from sparing.
    """
    with ExtractorPool(idle_exit=None) as pool:
        if needed:
            pool.warm()
        yield pool


def is_unknown(settings: Settings, references: Iterable[str]) -> bool:
    """Say whether the store has no name for one of *references*, so that there is something to extract.

    Whoever parses them for good says what is wrong with one that is none.
    """
    layout = StoreLayout(settings.store)
    try:
        return not all(os.path.lexists(layout.ref(naming.reference(settings, text))) for text in references)
    except LayerfsError:
        return False
