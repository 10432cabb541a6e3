import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from layerfs.errors import DigestMismatch, InvalidLayer, LayerfsError, NotInStore, StoreDamaged
from layerfs.oci import Digest
from layerfs.store import ImageStorage
from tests.store.helpers import at_once, download, leftovers
from tests.support import images
from tests.support.images import BuiltLayer, Compression

ENTRIES = (
    images.directory("bin"),
    images.file("bin/new-tool", b"upper", mode=0o755),
    images.whiteout("bin/sh"),
    images.symlink("bin/link", "new-tool"),
)
LAYER = images.layer(*ENTRIES)


def tarball(tmp_path: Path, layer: BuiltLayer = LAYER) -> Path:
    path = tmp_path / "local.tar"
    path.write_bytes(layer.blob)
    return path


@pytest.mark.parametrize("compression", get_args(Compression))
def test_any_local_tar_becomes_a_layer_with_its_markers(
    storage: ImageStorage, tmp_path: Path, compression: Compression
) -> None:
    layer = images.layer(*ENTRIES, compression=compression)
    opened = storage.extract_layer(str(layer.digest), tarball(tmp_path, layer))
    assert opened.path == storage.layer_extracted_path(layer.digest)
    assert (opened.path / "bin/.wh.sh").exists()
    assert (opened.path / "bin/new-tool").read_bytes() == b"upper"
    assert opened.record.layer.diff_id == str(layer.diff_id)
    assert opened.tables().whiteouts == b"bin/.wh.sh\0"
    assert storage.open_layer(layer.digest) == opened
    assert leftovers(storage.images_dir) == []


def test_a_layer_that_is_there_is_not_extracted_again(storage: ImageStorage, tmp_path: Path) -> None:
    path = tarball(tmp_path)
    first = storage.extract_layer(LAYER.digest, path)
    path.unlink()
    assert storage.extract_layer(LAYER.digest, path) == first


def test_the_downloaded_blob_is_a_local_tar(storage: ImageStorage) -> None:
    blob = download(storage, LAYER.blob)
    storage.extract_layer(LAYER.digest, blob.path)
    assert storage.verify_layer(LAYER.digest)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        pytest.param(images.layer(images.file("other")).blob, DigestMismatch, id="another layer"),
        pytest.param(LAYER.blob + b"\0", DigestMismatch, id="one byte more"),
        pytest.param(images.flip_byte(LAYER.blob, 30), LayerfsError, id="one bit"),
        pytest.param(LAYER.blob[:-20], LayerfsError, id="truncated"),
        pytest.param(b"no tar", LayerfsError, id="no tar"),
        pytest.param(b"", LayerfsError, id="empty"),
    ],
)
def test_a_failure_leaves_nothing(
    storage: ImageStorage, tmp_path: Path, content: bytes, error: type[LayerfsError]
) -> None:
    path = tmp_path / "local.tar"
    path.write_bytes(content)
    with pytest.raises(error):
        storage.extract_layer(LAYER.digest, path)
    assert storage.open_layer(LAYER.digest) is None
    assert os.listdir(storage.images_dir / "extracted") == []
    assert storage.extract_layer(LAYER.digest, tarball(tmp_path)).digest == LAYER.digest


def test_a_hostile_archive_leaves_nothing(storage: ImageStorage, tmp_path: Path) -> None:
    layer = images.layer(images.file("a"), images.file("../../escaped"))
    with pytest.raises(InvalidLayer):
        storage.extract_layer(layer.digest, tarball(tmp_path, layer))
    assert os.listdir(storage.images_dir / "extracted") == []


def test_a_missing_tar_is_named(storage: ImageStorage, tmp_path: Path) -> None:
    with pytest.raises(NotInStore, match=str(tmp_path / "nothing")):
        storage.extract_layer(LAYER.digest, tmp_path / "nothing")


def test_a_damaged_blob_of_the_store_is_the_stores_fault(storage: ImageStorage) -> None:
    path = download(storage, LAYER.blob).path
    path.write_bytes(images.flip_byte(LAYER.blob, 30))
    with pytest.raises(StoreDamaged, match="fetch it again"):
        storage.extract_layer(LAYER.digest, path)


def test_threads_and_stores_extract_the_same_layer_once(
    storage: ImageStorage, store: Path, tmp_path: Path
) -> None:
    path = tarball(tmp_path)
    with ImageStorage(store) as other:
        stores = (storage, other)
        inodes = at_once(
            6,
            lambda number: stores[number % 2].extract_layer(LAYER.digest, path).path.stat().st_ino,
        )
    assert len(set(inodes)) == 1


def test_a_closed_store_can_be_used_again(storage: ImageStorage, tmp_path: Path) -> None:
    storage.extract_layer(LAYER.digest, tarball(tmp_path))
    storage.close()
    other = images.layer(images.file("x"))
    storage.extract_layer(other.digest, tarball(tmp_path, other))


# verify_layer


def test_a_good_layer_verifies(storage: ImageStorage) -> None:
    storage.extract_layer(LAYER.digest, download(storage, LAYER.blob).path)
    assert storage.verify_layer(LAYER.digest)
    assert leftovers(storage.images_dir) == []


def _flip(path: Path) -> None:
    path.write_bytes(images.flip_byte(path.read_bytes()))


def _remove(path: Path) -> None:
    path.unlink()


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.allow_warnings
@pytest.mark.parametrize("damage", [_flip, _remove, _link, _directory, _fifo])
def test_a_damaged_blob_is_noticed(storage: ImageStorage, damage: Callable[[Path], None]) -> None:
    damage(download(storage, LAYER.blob).path)
    assert not storage.verify_layer(LAYER.digest)


@pytest.mark.allow_warnings
def test_a_layer_that_was_never_fetched_does_not_verify(storage: ImageStorage) -> None:
    assert not storage.verify_layer(LAYER.digest)


def _other_bytes(tree: Path) -> None:
    times = os.stat(tree / "bin/new-tool")
    (tree / "bin/new-tool").write_bytes(b"UPPER")
    os.utime(tree / "bin/new-tool", ns=(times.st_atime_ns, times.st_mtime_ns))


def _other_mode(tree: Path) -> None:
    (tree / "bin/new-tool").chmod(0o4755)


def _other_owner(tree: Path) -> None:
    os.chown(tree / "bin/new-tool", 1, 1)


def _more(tree: Path) -> None:
    (tree / "bin/backdoor").write_bytes(b"")


def _less(tree: Path) -> None:
    (tree / "bin/.wh.sh").unlink()


def _other_target(tree: Path) -> None:
    (tree / "bin/link").unlink()
    (tree / "bin/link").symlink_to("/etc/passwd")
    os.utime(tree / "bin/link", (images.TIME, images.TIME), follow_symlinks=False)


def _other_type(tree: Path) -> None:
    (tree / "bin/link").unlink()
    (tree / "bin/link").mkdir()


def _second_name(tree: Path) -> None:
    os.link(tree / "bin/new-tool", tree.parent / "second")


def _xattr(tree: Path) -> None:
    os.setxattr(tree / "bin", "user.note", b"1")


def _record(tree: Path) -> None:
    tree.with_suffix(".json").write_bytes(b"{}")


@pytest.mark.needs_root
@pytest.mark.allow_warnings
@pytest.mark.parametrize(
    "damage",
    [_other_bytes, _other_mode, _other_owner, _more, _less, _other_target, _other_type, _second_name, _xattr,
     _record],
)  # fmt: skip
def test_a_tree_that_someone_changed_is_noticed(
    storage: ImageStorage, store: Path, damage: Callable[[Path], None]
) -> None:
    damage(storage.extract_layer(LAYER.digest, download(storage, LAYER.blob).path).path)
    with ImageStorage(store) as opened:
        assert not opened.verify_layer(LAYER.digest)
        assert leftovers(store) == []


def test_verification_of_a_digest_that_no_blob_has(storage: ImageStorage) -> None:
    assert storage.open_blob(Digest.of(b"nothing")) is None
