"""What tools see of a layer beyond names and bytes: ACLs, and the holes of sparse files."""

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import daemon, images
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_USER_OBJECT, _USER, _GROUP_OBJECT, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_NO_ID = 0xFFFFFFFF


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Encode entries of tag, permissions and id as the kernel does (linux/posix_acl_xattr.h)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def acl_of(user: int) -> bytes:
    return acl(
        (_USER_OBJECT, 6, _NO_ID), (_USER, 4, user), (_GROUP_OBJECT, 0, _NO_ID), (_MASK, 4, _NO_ID),
        (_OTHER, 0, _NO_ID),
    )  # fmt: skip


SPARSE_SIZE = 4 << 20
SPARSE = {
    "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "sparse",
    "GNU.sparse.realsize": str(SPARSE_SIZE),
}  # fmt: skip
LAYER = images.layer(
    images.directory("d", 0o750, xattrs={"system.posix_acl_default": acl_of(70_000)}),
    images.file("d/acl", b"text", 0o640, xattrs={"system.posix_acl_access": acl_of(1234), "user.note": b"n"}),
    images.file("d/plain", b"text" * 1000),
    images.file("tiny", b"x"),
    images.file("empty"),
    images.file("GNUSparseFile.0/sparse", b"1\n0\n5\n".ljust(512, b"\0") + b"begin", pax=SPARSE),
)


@pytest.fixture(scope="module")
def trees(
    _session_registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Path]]:
    """The layer on native disk, and through the mount; extracted."""
    reference = _session_registry.push("e2e/fidelity", "1", images.image(LAYER))
    place = tmp_path_factory.mktemp("fidelity")
    with daemon.running(place / "store", place / "mount") as running:
        shown = running.images / str(reference) / "layers/00/diff"
        assert (shown / "tiny").read_bytes() == b"x"
        yield place / "store/extracted" / LAYER.digest.name, shown.resolve()


def facl(path: Path) -> str:
    return subprocess.run(
        ["getfacl", "-nR", "."], cwd=path, capture_output=True, text=True, check=True
    ).stdout


def test_acls_can_be_read(trees: tuple[Path, Path]) -> None:
    native, shown = trees
    assert facl(shown) == facl(native)
    assert "user:1234:r--" in facl(shown)
    assert "default:user:70000:r--" in facl(shown)
    with pytest.raises(OSError, match="not supported"):  # and ls asks for no other file
        os.getxattr(shown / "d/plain", "system.posix_acl_access")
    with pytest.raises(OSError, match="No data"):
        os.getxattr(shown / "d", "system.posix_acl_access")


COPIES = {
    "cp -a": ["cp", "-a", "SHOWN", "OUT"],
    "rsync": ["rsync", "-aAX", "SHOWN/", "OUT"],
    "tar": ["sh", "-c", "mkdir OUT && tar -C SHOWN --acls --xattrs -cf- . | tar -C OUT --acls --xattrs -xf-"],
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_have_the_acls(trees: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    native, shown = trees
    out = tmp_path / "out"
    command = [word.replace("SHOWN", str(shown)).replace("OUT", str(out)) for word in COPIES[name]]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stderr == ""
    assert facl(out) == facl(native)
    assert (out / "sparse").read_bytes() == (native / "sparse").read_bytes()


def test_blocks_of_sparse_files_tell_of_the_holes(trees: tuple[Path, Path]) -> None:
    _, shown = trees
    sparse = (shown / "sparse").stat()
    assert sparse.st_size == SPARSE_SIZE
    assert 0 < sparse.st_blocks * 512 < SPARSE_SIZE // 2
    for name, blocks in (("d/plain", 8), ("tiny", 1), ("empty", 0)):
        assert (shown / name).stat().st_blocks == blocks
