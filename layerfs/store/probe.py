"""What the filesystem of a store can carry: tried where it matters, a "no" remembered in the store.

An answer counts only if it was one. A disk that is full or ill says nothing of what it can carry.
"""

import logging
import os
import stat
from collections.abc import Callable
from errno import EACCES, EINVAL, ENOSYS, EOPNOTSUPP, EPERM
from pathlib import Path
from typing import Final

import msgspec

from layerfs.host.oserrors import store_error
from layerfs.layer.overlayfs import OPAQUE_VALUE, object_redirect, opaque_xattr, stub_xattrs
from layerfs.layer.record import OwnerKind
from layerfs.oci import Digest
from layerfs.store.layout import StoreLayout
from layerfs.store.locks import Locks
from layerfs.store.owner import Owner
from layerfs.store.staging import stage_tree
from layerfs.store.xattrs import xattr

_PROBE: Final = Digest.of(b"layerfs probe")
_MARKER: Final = ".wh.probe"
REFUSALS: Final = frozenset({EPERM, EACCES, EOPNOTSUPP, EINVAL, ENOSYS})
"""What a filesystem says, or whoever guards it, that will never hold a whiteout or the attribute."""

_STUB_SIZE: Final = 1 << 20
_TIME_NS: Final = 1_000_000_000_123_456_789

log = logging.getLogger(__name__)


def tried(layout: StoreLayout, locks: Locks, known: Owner) -> Owner:
    """Return *known* with what the filesystem can carry. Raises StoreFull, StoreError: then nothing is known.

    After a "no" that has become a "yes" the trees that lack the overlay form are made anew.
    """
    marker_names, native = probe(layout.extracted, locks, known.owner)
    if known.whiteout_devices and not native:
        log.warning("%s: this filesystem refuses whiteouts or xattrs; lowerdirs will be FUSE", layout.root)
    return msgspec.structs.replace(known, whiteout_devices=native, marker_names=marker_names)


def probe(directory: Path, locks: Locks, owner: OwnerKind) -> tuple[bool, bool]:
    """Try whether *directory* takes names of markers, and whiteouts with the opaque attribute.

    Raises StoreFull, StoreError.
    """
    with stage_tree(locks, directory, _PROBE) as tree:

        def marker() -> None:
            os.close(os.open(tree.path / _MARKER, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

        def whiteout() -> None:
            os.mknod(tree.path / "whiteout", stat.S_IFCHR, os.makedev(0, 0))
            xattr.setxattr(os.fspath(tree.path), opaque_xattr(owner), OPAQUE_VALUE)

        if not _takes(directory, "names that begin with .wh.", marker):
            return False, False  # and no whiteout is tried: fuse-overlayfs makes one that nobody can remove
        return True, _takes(directory, "whiteouts or overlay attributes", whiteout)


def _takes(directory: Path, what: str, attempt: Callable[[], None]) -> bool:
    """Say whether *attempt* is not refused. Raises StoreFull, StoreError if the answer is about another."""
    try:
        attempt()
    except OSError as exc:
        if exc.errno not in REFUSALS:
            raise store_error(exc, f"{directory}: cannot try what it can carry") from exc
        log.info("%s: no %s: %s", directory, what, exc)
        return False
    return True


def stub_problem(directory: Path, locks: Locks, owner: OwnerKind) -> str:
    """Say why *directory* holds no files without content; empty if it does. Raises StoreFull, StoreError.

    Tried are the attributes of a stub, holes, and times to the nanosecond (`layerfs.store.objects`).
    """
    with stage_tree(locks, directory, _PROBE) as tree:
        path = tree.path / "stub"
        try:
            path.touch()
            os.truncate(path, _STUB_SIZE)
            for name, value in zip(stub_xattrs(owner), (b"", object_redirect(_PROBE.object_id)), strict=True):
                xattr.setxattr(os.fspath(path), name, value)
            os.utime(path, ns=(_TIME_NS, _TIME_NS))
        except OSError as exc:
            if exc.errno not in REFUSALS:
                raise store_error(exc, f"{directory}: cannot try what it can carry") from exc
            return f"its filesystem refuses the attributes of a file without content: {exc.strerror}"
        status = os.stat(path)
    if status.st_blocks * 512 >= _STUB_SIZE:
        return "its filesystem has no holes in files"
    if status.st_mtime_ns != _TIME_NS:
        return "its filesystem keeps no nanoseconds of times"
    return ""
