"""A disk without a free byte and a free inode: whoever looks or removes needs neither."""

import os
from pathlib import Path

import pytest

from layerfs.store import ImageStorage
from tests.cli.conftest import CommandLine
from tests.store.test_full_disk import fill_up
from tests.support import clients, daemon, images, mounts
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

LAYER = images.layer(images.directory("."), images.file("motd", b"hello"), command="COPY motd /")


@pytest.fixture
def full(layerfs: CommandLine, small_disk: Path, registry: Registry) -> str:
    """An image in a store on a disk on which nothing can be made any more; its name."""
    layerfs.environment["LAYERFS_STORE"] = str(small_disk / "store")
    name = str(registry.push("full/disk", "1", images.image(LAYER)))
    layerfs("pull", name)
    fill_up(small_disk)
    take_inodes(small_disk, leave=0)
    return name


def take_inodes(disk: Path, *, leave: int) -> None:
    """Make files until *leave* more could be made."""
    number = 0
    while os.statvfs(disk).f_ffree > leave:
        (disk / f"taken-{number}").symlink_to("short")
        number += 1


def test_full_disk_locks_tools_out(layerfs: CommandLine, full: str, tmp_path: Path) -> None:
    store = Path(layerfs.environment["LAYERFS_STORE"])
    with pytest.raises(OSError, match="No space left"):
        (store.parent / "one").mkdir()

    assert full in layerfs("images").stdout
    assert full in layerfs("images", "--json").stdout
    assert full in layerfs("df", "--verbose").stdout
    assert "COPY motd" in layerfs("history", full, "--offline").stdout
    assert "COPY motd" in layerfs("history", full).stdout
    with daemon.running(store, tmp_path / "mnt", "--offline") as running:
        assert clients.read(running.images / full / "rootfs/motd") == b"hello"
    mounted = layerfs("mount", "--log-file", store.parent / "log", tmp_path / "mnt")
    assert f"{store.parent}/log: No space left on device" in mounted.stderr
    assert clients.read(tmp_path / "mnt/images" / full / "rootfs/motd") == b"hello"
    layerfs("umount", tmp_path / "mnt")
    (tmp_path / "target").mkdir()
    layerfs("overlay", full, tmp_path / "target")
    assert (tmp_path / "target/motd").read_bytes() == b"hello"
    layerfs("overlay", "--umount", tmp_path / "target")
    assert layerfs("rm", full).stdout.startswith(f"removed {full}\nfreed ")
    assert layerfs("images", "--quiet").stdout == ""
    assert mounts.mount_at(tmp_path / "mnt") is None


@pytest.mark.parametrize("left", [1, 2, 3])
def test_full_disk_forgets_overlays(
    layerfs: CommandLine, small_disk: Path, registry: Registry, tmp_path: Path, left: int
) -> None:
    store = small_disk / "store"
    layerfs.environment["LAYERFS_STORE"] = str(store)
    name = str(registry.push("full/overlays", "1", images.image(LAYER)))
    layerfs("pull", name)
    take_inodes(small_disk, leave=left)

    layerfs("images")
    layerfs("lowerdir", name)
    assert ImageStorage(store).capabilities.whiteout_devices

    for path in small_disk.glob("taken-*"):
        path.unlink()
    assert ImageStorage(store).capabilities.whiteout_devices
    (tmp_path / "target").mkdir()
    layerfs("overlay", name, tmp_path / "target")
    layerfs("overlay", "--umount", tmp_path / "target")
