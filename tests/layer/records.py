"""Tables of layers that were never extracted, from the entries of their archives."""

import os
from collections.abc import Sequence

from layerfs.layer.tables import Tables, path_table
from tests.support import model
from tests.support.images import Entry


def tables_of(entries: Sequence[Entry]) -> Tables:
    """Return what extracting *entries* would find, as far as markers go."""
    layer = model.changeset(entries)
    names = [os.fsencode(entry.name) for entry in entries]
    markers = {name for name in names if os.path.basename(name).startswith(b".wh.")}
    opaque = {name for name in markers if os.path.basename(name) == b".wh..wh..opq"}
    return Tables(
        whiteouts=path_table(markers - opaque),
        opaques=path_table(layer.opaques),
        implied=path_table(
            path for path, inode in layer.tree.items() if inode.is_directory and not inode.listed
        ),
    )
