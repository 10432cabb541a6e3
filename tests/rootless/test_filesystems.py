"""The store of a user on the filesystems that homes and nodes have; what one cannot hold is in the record."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import skip_for_lack_of
from tests.rootless.household import UID, Household
from tests.rootless.scenes import look, privileged_image
from tests.support import canary, daemon, mounts
from tests.support.registry import Registry

pytestmark = pytest.mark.needs_root

_MAKERS = {
    "ext4": ["mkfs.ext4", "-q"],
    "xfs": ["mkfs.xfs", "-q"],
    "btrfs": ["mkfs.btrfs", "-q"],
}
_IMAGE_BYTES = 512 << 20
"""A sparse file; mkfs.xfs makes nothing smaller."""


@contextlib.contextmanager
def filesystem(kind: str, household: Household) -> Iterator[Path]:
    """Mount a fresh filesystem where the user sees it, and give it to him."""
    point = household.place("disk")
    maker = _MAKERS.get(kind)
    if maker is None:
        arguments = ["-t", kind, "none"]
    else:
        file = household.base / f"{point.name}.img"
        with file.open("wb") as opened:
            opened.truncate(_IMAGE_BYTES)
        try:
            subprocess.run([*maker, str(file)], check=True, capture_output=True)
        except FileNotFoundError:
            skip_for_lack_of(maker[0])
        arguments = ["-o", "loop", str(file)]
    household.as_root("mount", *arguments, str(point))
    household.as_root("chown", str(UID), str(point))
    try:
        yield point
    finally:
        household.as_root("umount", str(point))


@pytest.mark.parametrize(
    ("kind", "native"),
    [
        *((kind, True) for kind in [*_MAKERS, "tmpfs"]),
        pytest.param("ramfs", False, id="a filesystem without xattrs"),
    ],
)
def test_the_image_is_the_same_on(
    registry: Registry, household: Household, store: Path, mountpoint: Path, kind: str, native: bool
) -> None:
    reference = registry.push("rootless/filesystems", "latest", privileged_image())
    with daemon.running(store, mountpoint) as roots:
        expected = look(roots.images / str(reference) / "rootfs")
        lower = look(roots.images / str(reference) / "layers/01/lower")

    with filesystem(kind, household) as disk, household.room().mounted("--store", str(disk / "s")) as mounted:
        with mounted.inside() as inside:
            found = inside.call(look, mounted.images / str(reference) / "rootfs")
            found_lower = inside.call(look, mounted.images / str(reference) / "layers/01/lower")
        owner = json.loads((household.seen(disk) / "s/owner.json").read_text())

    canary.assert_same(expected, found)
    canary.assert_same(lower, found_lower)
    assert owner["whiteout_devices"] is native


def test_an_overlay_for_a_home_is_as_good(
    registry: Registry, household: Household, store: Path, mountpoint: Path
) -> None:
    """As in a container: the store lies on an overlay, which keeps whiteouts to itself."""
    reference = registry.push("rootless/filesystems", "latest", privileged_image())
    with daemon.running(store, mountpoint) as roots:
        expected = look(roots.images / str(reference) / "rootfs")
    base = household.place("overlay")
    lower, upper, work = (base / name for name in ("lower", "upper", "work"))
    for path in (lower, upper, work, base / "merged"):
        path.mkdir()
        os.chown(path, UID, UID)
    options = f"lowerdir={mounts.escape(lower)},upperdir={upper},workdir={work}"
    household.as_root("mount", "-t", "overlay", "overlay", "-o", options, str(base / "merged"))
    try:
        with (
            household.room().mounted("--store", str(base / "merged/s")) as mounted,
            mounted.inside() as inside,
        ):
            found = inside.call(look, mounted.images / str(reference) / "rootfs")
            owner = json.loads((household.seen(base) / "merged/s/owner.json").read_text())
    finally:
        household.unmount(base / "merged")

    canary.assert_same(expected, found)
    assert owner["whiteout_devices"] is False


def test_a_mountpoint_that_fusermount3_forbids_is_named_as_such(household: Household) -> None:
    with filesystem("mqueue", household) as disk:  # ramfs is forbidden before fuse 3.17 only
        done = household.room().layerfs("mount", "--store", household.place("s"), disk, check=False)

    assert done.returncode == 1
    assert "mounting over filesystem type 0x19800202 is forbidden" in done.stderr
    assert "fusermount3 takes no directories on some filesystems, ramfs for instance" in done.stderr
