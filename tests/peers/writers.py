"""Archives of a tree by the programs of the field that write layers, and what each of them loses."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.canary import Field


@dataclass(frozen=True, slots=True)
class Writer:
    """One program in one format."""

    write: Callable[[Path, Path], bytes]
    """Of a tree, with a directory for what it needs besides; returns the layer."""
    rich: bool = True
    """Whether it can write all of a rich tree (`tests.support.random_trees`)."""
    loses: frozenset[Field] = frozenset()
    unit: int = 1
    """Nanoseconds, to which it cuts times."""
    below: bytes = b""
    """Where in the layer the tree is."""


def _run(*command: str | Path, **more: str) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, env=os.environ | more).stdout


def _tar(*options: str) -> Callable[[Path, Path], bytes]:
    return lambda tree, _: _run("tar", "--numeric-owner", *options, "-C", tree, "-cf", "-", ".")


def _bsdtar(*options: str) -> Callable[[Path, Path], bytes]:
    return lambda tree, _: _run("bsdtar", *options, "-C", tree, "-cf", "-", ".", LC_ALL="C.UTF-8")


def _busybox(tree: Path, _: Path) -> bytes:
    return _run("busybox", "tar", "-C", tree, "-cf", "-", ".")


def _python(format: int) -> Callable[[Path, Path], bytes]:
    def write(tree: Path, work: Path) -> bytes:
        with tarfile.open(work / "python.tar", "w", format=format) as archive:
            archive.add(tree, ".")
        return (work / "python.tar").read_bytes()

    return write


def _umoci(tree: Path, work: Path) -> bytes:
    layout = work / "layout"
    _run("umoci", "init", "--layout", layout)
    _run("umoci", "new", "--image", f"{layout}:t")
    _run("umoci", "insert", "--image", f"{layout}:t", tree, "/in")
    return last_layer(layout)


def _umoci_repack(tree: Path, work: Path) -> bytes:
    layout, bundle = work / "layout", work / "bundle"
    _run("umoci", "init", "--layout", layout)
    _run("umoci", "new", "--image", f"{layout}:t")
    _run("umoci", "unpack", "--image", f"{layout}:t", bundle)
    _run("cp", "-a", tree, bundle / "rootfs" / "in")
    _run("umoci", "repack", "--image", f"{layout}:t", bundle)
    return last_layer(layout)


def _buildah(tree: Path, work: Path) -> bytes:
    places = ["--root", str(work / "root"), "--runroot", str(work / "run"), "--storage-driver", "vfs"]
    try:
        name = _run("buildah", *places, "from", "scratch").decode().strip()
        root = _run("buildah", *places, "mount", name).decode().strip()
        _run("cp", "-a", tree, Path(root) / "in")
        _run("buildah", *places, "umount", name)
        _run("buildah", *places, "commit", "--format", "oci", name, f"oci:{work / 'layout'}:t")
    finally:
        subprocess.run(["buildah", *places, "rm", "--all"], capture_output=True, check=False)
        shutil.rmtree(work / "root", ignore_errors=True)
    return last_layer(work / "layout")


def last_layer(layout: Path) -> bytes:
    """Return the topmost layer of the only image in a layout, as it is."""

    def blob(descriptor: Mapping[str, str]) -> bytes:
        return (layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()

    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(blob(index["manifests"][-1]))
    return blob(manifest["layers"][-1])


_NO_XATTRS: Final[frozenset[Field]] = frozenset({"xattrs"})

_SECOND: Final = 10**9

WRITERS: Final[Mapping[str, Writer]] = {
    "GNU tar, v7": Writer(_tar("--format=v7"), rich=False),
    "GNU tar, oldgnu": Writer(_tar("--format=oldgnu"), loses=_NO_XATTRS, unit=_SECOND),
    "GNU tar, gnu": Writer(_tar("--format=gnu"), loses=_NO_XATTRS, unit=_SECOND),
    "GNU tar, gnu, sparse": Writer(_tar("--format=gnu", "--sparse"), loses=_NO_XATTRS, unit=_SECOND),
    "GNU tar, ustar": Writer(_tar("--format=ustar"), rich=False),
    "GNU tar, posix": Writer(_tar("--format=posix", "--xattrs")),
    "GNU tar, posix, sparse 0.0": Writer(_tar("--format=posix", "--xattrs", "-S", "--sparse-version=0.0")),
    "GNU tar, posix, sparse 0.1": Writer(_tar("--format=posix", "--xattrs", "-S", "--sparse-version=0.1")),
    "GNU tar, posix, sparse 1.0": Writer(_tar("--format=posix", "--xattrs", "-S", "--sparse-version=1.0")),
    "bsdtar, pax": Writer(_bsdtar("--format=pax", "--xattrs", "--no-read-sparse")),
    # It cuts sparse files' names that are long and no text, as it and GNU tar read them, too.
    "bsdtar, pax, sparse": Writer(_bsdtar("--format=pax"), rich=False),
    "bsdtar, gnutar": Writer(_bsdtar("--format=gnutar"), loses=frozenset({"xattrs", "mtime_ns"})),
    "bsdtar, ustar": Writer(_bsdtar("--format=ustar"), rich=False),
    "Python, ustar": Writer(_python(tarfile.USTAR_FORMAT), rich=False),
    "Python, gnu": Writer(_python(tarfile.GNU_FORMAT), loses=_NO_XATTRS, unit=_SECOND),
    "Python, pax": Writer(_python(tarfile.PAX_FORMAT), loses=_NO_XATTRS, unit=1_000_000),
    "busybox": Writer(_busybox, rich=False),
    # It refuses names that begin as those of whiteouts, which some rich trees have.
    "umoci insert": Writer(_umoci, rich=False, unit=_SECOND, below=b"in"),
    "umoci repack": Writer(_umoci_repack, rich=False, unit=_SECOND, below=b"in"),
    "buildah": Writer(_buildah, unit=_SECOND, below=b"in"),
}
SLOW: Final = frozenset({"umoci insert", "umoci repack", "buildah"})
"""They take a second or more, not milliseconds."""
