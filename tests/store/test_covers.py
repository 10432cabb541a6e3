import errno
import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerfs.errors import NotInStore
from layerfs.oci import Digest, stack_digest
from layerfs.store import ImageStorage
from tests.store.helpers import at_once, leftovers
from tests.support import images, mounts
from tests.support.images import BuiltLayer

BASE = images.layer(
    images.directory("tmp", mode=0o1777, uid=3, gid=4, mtime=1_600_000_000, xattrs={"user.note": b"kept"}),
    images.file("tmp/old", b"old"),
    images.file("gone", b"gone"),
    images.directory("dir"),
    images.file("dir/below", b"below"),
)
TOP = images.layer(
    images.file("tmp/new", b"new"),
    images.whiteout("tmp/old"),
    images.whiteout("gone"),
    images.directory("dir"),
    images.opaque("dir"),
    images.file("dir/above", b"above"),
)


def have(storage: ImageStorage, tmp_path: Path, layers: Sequence[BuiltLayer]) -> list[Digest]:
    for number, layer in enumerate(layers):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(layer.blob)
        storage.extract_layer(layer.digest, path)
    return [layer.digest for layer in layers]


@contextmanager
def overlay(storage: ImageStorage, layers: Sequence[Digest], point: Path) -> Iterator[Path]:
    cover = storage.publish_cover(layers)
    lowers = [cover, *(storage.layer_extracted_path(digest) for digest in reversed(dict.fromkeys(layers)))]
    point.mkdir()
    option = "lowerdir=" + ":".join(map(str, lowers))
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", option, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_cover_is_published_under_the_digest_of_its_stack(storage: ImageStorage, tmp_path: Path) -> None:
    layers = have(storage, tmp_path, [BASE, TOP])
    assert storage.cover(layers) is None
    path = storage.publish_cover(layers)
    assert path == storage.images_dir / "covers" / stack_digest(layers).name
    assert storage.cover(layers) == path == ImageStorage(storage.images_dir).cover(layers)
    assert storage.publish_cover(layers) == path
    assert storage.cover(layers[::-1]) is None
    assert leftovers(storage.images_dir) == []


@pytest.mark.needs_root
def test_a_cover_holds_whiteouts_over_markers_and_the_attributes_of_implied_directories(
    storage: ImageStorage, tmp_path: Path
) -> None:
    path = storage.publish_cover(have(storage, tmp_path, [BASE, TOP]))
    for marker in (".wh.gone", "tmp/.wh.old"):
        status = (path / marker).lstat()
        assert stat.S_ISCHR(status.st_mode)
        assert status.st_rdev == 0
    status = (path / "tmp").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1777, 3, 4)
    assert status.st_mtime == 1_600_000_000
    assert os.getxattr(path / "tmp", "user.note") == b"kept"
    for directory, _, _ in os.walk(path):
        assert not [name for name in os.listxattr(directory) if "overlay" in name]


@pytest.mark.needs_root
def test_the_kernel_shows_the_stack_through_the_cover(storage: ImageStorage, tmp_path: Path) -> None:
    layers = have(storage, tmp_path, [BASE, TOP])
    with overlay(storage, layers, tmp_path / "merged") as merged:
        assert sorted(os.listdir(merged)) == ["dir", "tmp"]
        assert os.listdir(merged / "tmp") == ["new"]
        assert os.listdir(merged / "dir") == ["above"]
        assert (merged / "tmp").stat().st_mode & 0o7777 == 0o1777
        assert (merged / "tmp").stat().st_uid == 3


@pytest.mark.parametrize(
    "stack",
    [
        pytest.param([], id="no layers"),
        pytest.param([BASE], id="one layer"),
        pytest.param([BASE, BASE], id="the same twice"),
        pytest.param([images.layer()], id="an empty layer"),
        pytest.param([BASE, images.layer(), TOP, images.layer()], id="empty layers between"),
    ],
)
def test_unusual_stacks_have_covers_too(
    storage: ImageStorage, tmp_path: Path, stack: list[BuiltLayer]
) -> None:
    layers = have(storage, tmp_path, stack)
    path = storage.publish_cover(layers)
    assert path.is_dir()
    assert storage.cover(layers) == path


def test_a_cover_of_missing_layers_is_refused(storage: ImageStorage, tmp_path: Path) -> None:
    have(storage, tmp_path, [BASE])
    with pytest.raises(NotInStore, match=str(TOP.digest)):
        storage.publish_cover([BASE.digest, TOP.digest])
    assert leftovers(storage.images_dir) == []


def test_threads_publish_the_same_cover_once(storage: ImageStorage, tmp_path: Path) -> None:
    layers = have(storage, tmp_path, [BASE, TOP])
    inodes = at_once(6, lambda _: storage.publish_cover(layers).stat().st_ino)
    assert len(set(inodes)) == 1
    assert leftovers(storage.images_dir) == []


def test_a_cover_becomes_durable_with_the_layers(storage: ImageStorage, tmp_path: Path) -> None:
    layers = have(storage, tmp_path, [BASE, TOP])
    storage.publish_cover(layers)
    assert storage.make_durable() == 3
    record = (storage.images_dir / "covers" / stack_digest(layers).name).with_suffix(".json").read_text()
    assert '"durable"' in record
    assert all(str(digest) in record for digest in layers)


def test_a_cover_of_another_boot_is_made_again(storage: ImageStorage, tmp_path: Path) -> None:
    layers = have(storage, tmp_path, [BASE, TOP])
    path = storage.publish_cover(layers)
    record = path.with_suffix(".json")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    record.write_text(record.read_text().replace(boot, "another boot"))
    opened = ImageStorage(storage.images_dir)
    assert opened.cover(layers) is None
    assert opened.publish_cover(layers) == path
    assert opened.cover(layers) == path


def test_a_cover_can_be_discarded(storage: ImageStorage, tmp_path: Path) -> None:
    layers = have(storage, tmp_path, [BASE, TOP])
    storage.publish_cover(layers)
    assert storage.discard_cover(layers)
    assert storage.cover(layers) is None
    assert not storage.discard_cover(layers)


# Where 0:0 devices are refused the layers are shown in their FUSE form, which has no markers


@pytest.fixture
def without_devices(store: Path) -> Iterator[ImageStorage]:
    with mounts.ramfs(store), ImageStorage(store) as opened:
        assert not opened.capabilities.whiteout_devices
        yield opened


@pytest.mark.needs_root
@pytest.mark.allow_warnings
def test_a_cover_for_fuse_lowers_needs_directories_alone(
    without_devices: ImageStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = have(without_devices, tmp_path, [BASE, TOP])

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "mknod", refuse)
    path = without_devices.publish_cover(layers)
    found = {os.path.relpath(directory, path): files for directory, _, files in os.walk(path)}
    assert found == {".": [], "tmp": [], "dir": []}
    if os.geteuid() == 0:
        status = (path / "tmp").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o1777, 3)


@pytest.mark.needs_root
@pytest.mark.allow_warnings
def test_a_cover_over_an_opaque_root_needs_whiteouts_all_the_same(
    without_devices: ImageStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = images.layer(images.opaque("."), images.file("new"), images.whiteout("tmp"))
    layers = have(without_devices, tmp_path, [BASE, top])
    path = without_devices.publish_cover(layers)
    assert {"tmp", "gone", "dir"} <= {entry.name for entry in path.iterdir()}
    assert not [entry for entry in path.iterdir() if entry.name.startswith(".wh.")]
