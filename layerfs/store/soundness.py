"""Whether a tree is still what was published: the directory itself, with what the kernel reads of it.

Plain ``tar`` and ``cp -r`` drop extended attributes, a copy by another user drops owners, others drop hard
links, holes or times; what is left looks like a layer and is none. Nothing short of the archive says what a
copy lacks, so a copy is void, and the layer is extracted again.
"""

import logging
import os
from collections.abc import Callable
from errno import ENODATA, ENOENT, ENOTDIR, ENOTSUP
from pathlib import Path
from typing import Final

from layerfs.errors import StoreError
from layerfs.host.births import birth_ns
from layerfs.layer.overlayfs import OPAQUE_VALUE, opaque_xattr
from layerfs.layer.paths import shown
from layerfs.layer.record import Identity, LayerRecord
from layerfs.layer.tables import rows
from layerfs.store.layout import RECORD_SUFFIX
from layerfs.store.owner import Capabilities
from layerfs.store.records import CoverRecord, read_opaques
from layerfs.store.xattrs import xattr

_LOST: Final = frozenset({ENODATA, ENOENT, ENOTDIR, ENOTSUP})
"""What a disk says that does not have the attribute any more; all else says nothing of it."""

_GONE: Final = "removed meanwhile"

log = logging.getLogger(__name__)


def identity_of(path: Path) -> Identity:
    """Return what tells the directory *path* from a copy. Raises OSError."""
    return Identity(os.lstat(path).st_ino, birth_ns(path))


class TreeJudge:
    """Judges the trees of one store, and says of each once what is wrong with it. Thread-safe."""

    def __init__(self, form: Callable[[], Capabilities]) -> None:
        self._form = form
        """Says what the trees of the store look like, as far as it is known."""
        self._warned: set[tuple[Path, str]] = set()

    def is_sound(self, path: Path, record: LayerRecord | CoverRecord) -> bool:
        """Say whether the tree at *path* is what *record* was written for."""
        problem = self.problem(path, record)
        if problem not in (None, _GONE) and (path, problem) not in self._warned:
            self._warned.add((path, problem))
            log.warning("%s: %s; it is not used, and made anew when it is needed", path, problem)
        return problem is None

    def problem(self, path: Path, record: LayerRecord | CoverRecord) -> str | None:
        """Say why the tree at *path* is not what *record* was written for; None if it is."""
        try:
            return tree_problem(path, record, self._form())
        except FileNotFoundError:
            return _GONE
        except (OSError, StoreError) as exc:
            return f"cannot be looked at: {exc}"


def tree_problem(path: Path, record: LayerRecord | CoverRecord, form: Capabilities) -> str | None:
    """Say why the tree at *path* is not what *record* was written for; None if it is. Raises OSError.

    *form* is that of the trees that the store makes now.
    """
    native = form.whiteout_devices
    if not record.identity.is_that_of(identity_of(path)):
        return "a copy, which may lack attributes, owners or links (expected the one that layerfs made)"
    if native and not record.native:
        return "made when the filesystem held no whiteouts (expected the overlay form)"
    if isinstance(record, LayerRecord) and not (record.escaped or form.marker_names):
        if record.layer.whiteouts or record.layer.opaques:
            return "made when the filesystem took names that begin with .wh. (expected none, it hides them)"
    elif native and isinstance(record, LayerRecord) and record.layer.opaques:
        return _opaque_problem(path, record)
    return None


def _opaque_problem(path: Path, record: LayerRecord) -> str | None:
    """Look at the opaque directories that the record lists, as far as one page of it goes. Raises OSError."""
    name = opaque_xattr(record.layer.owner)
    for directory in rows(read_opaques(path.with_name(path.name + RECORD_SUFFIX), record)):
        try:
            value = xattr.getxattr(os.path.join(os.fsencode(path), directory), name, symlink=True)
        except OSError as exc:
            if exc.errno not in _LOST:
                continue
            value = b""
        if value != OPAQUE_VALUE:
            return f"{shown(directory)} has lost its attribute {name} (expected {OPAQUE_VALUE.decode()})"
    return None
