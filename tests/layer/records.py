"""Records of layers that were never extracted, from the entries of their archives."""

import os
from collections.abc import Sequence

from layerfs.layer.names import to_text
from layerfs.layer.record import Extraction
from tests.support import model
from tests.support.images import Entry


def record_of(entries: Sequence[Entry]) -> Extraction:
    """Return what extracting *entries* would find, as far as markers go."""
    layer = model.changeset(entries)
    names = [os.fsencode(entry.name) for entry in entries]
    markers = {name for name in names if os.path.basename(name).startswith(b".wh.")}
    opaque = {name for name in markers if os.path.basename(name) == b".wh..wh..opq"}
    return Extraction(
        digest="",
        diff_id="",
        blob_size=0,
        tar_size=0,
        compression="none",
        entries=len(entries),
        files=0,
        file_bytes=0,
        whiteouts=tuple(sorted(map(to_text, markers - opaque))),
        opaques=tuple(sorted(map(to_text, layer.opaques))),
        implied=tuple(
            sorted(
                to_text(path) for path, inode in layer.tree.items() if inode.is_directory and not inode.listed
            )
        ),
        markers=len(markers),
    )
