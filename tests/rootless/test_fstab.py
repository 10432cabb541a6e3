"""Lines of fstab(5) and the real mount(8): all of them twice, and one of an ordinary user's own."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.cli import mounthelper
from layerfs.host.mounts import Mount, parse_mountinfo
from tests.rootless.household import STRANGER, UID, Household

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_CHECKOUT = Path(__file__).parents[2]
_HELPER = f"""#!/bin/sh
cd /
PYTHONPATH={_CHECKOUT} exec {sys.executable} -c 'from layerfs.cli.mounthelper import main; main()' "$@"
"""
_SET_UP = """
mount --bind "$1/fstab" /etc/fstab
mount -t overlay none -o "lowerdir=$1/sbin:/usr/sbin" /usr/sbin
"""
_MOUNT = "mount -a -t fuse.layerfs"


@contextlib.contextmanager
def fstab(household: Household, *lines: str) -> Iterator[None]:
    """Have mount(8) read these *lines* and find the helper, where the user is."""
    place = household.place("fstab", 0)
    (place / "fstab").write_text("".join(f"{line} 0 0\n" for line in lines))
    (place / "sbin").mkdir()
    helper = place / "sbin/mount.fuse.layerfs"
    helper.write_text(_HELPER)
    helper.chmod(0o755)
    place.chmod(0o755)
    household.as_root("sh", "-euc", _SET_UP, "sh", str(place))
    try:
        yield
    finally:
        for line in lines:
            household.as_root("sh", "-c", 'umount -l "$1" || true', "sh", line.split()[1])
        household.as_root("umount", "-l", "/etc/fstab", "/usr/sbin")


def mounted(household: Household) -> list[Mount]:
    """Return the mounts of layerfs where the user is."""
    found = parse_mountinfo(household.as_root("cat", "/proc/self/mountinfo").stdout.encode())
    return [mount for mount in found if mount.is_layerfs]


def test_all_lines_are_mounted_and_the_second_time_nothing_is(household: Household) -> None:
    place = household.place("root", 0)
    points = [place / name for name in ("none", "word", "path")]
    for point in (*points, place / "store"):
        point.mkdir()
    config = place / "config.toml"
    config.write_text(f'store = "{place}/default"\nlog.file = "{place}/log"\n')
    words = f"ro,_netdev,nofail,config={config}"
    sources = ("none", "layerfs", str(place / "store"))
    lines = [f"{source} {point} fuse.layerfs {words}" for source, point in zip(sources, points, strict=True)]
    with fstab(household, *lines):
        household.as_root("sh", "-euc", f"cd /etc; {_MOUNT}")
        first = mounted(household)
        household.as_root("sh", "-euc", f"cd /etc; {_MOUNT}")
        second = mounted(household)
        for point in points:
            household.unmount(point)
        left = mounted(household)

    assert sorted((one.source.decode(), one.point.decode()) for one in first) == sorted(
        zip(sources, map(str, points), strict=True)
    )
    assert second == first
    assert left == []
    assert (place / "store/owner.json").exists()
    assert (place / "default/owner.json").exists()


def test_a_word_that_mount_makes_a_path_of_is_no_store(household: Household) -> None:
    """In a directory with a file of that name, mount(8) hands over its path."""
    place = household.place("word", 0)
    (place / "layerfs").mkdir()
    (place / "layerfs/notes").touch()
    (place / "mnt").mkdir()
    with fstab(household, f"layerfs {place}/mnt fuse.layerfs ro,noauto"):
        done = household.as_root("sh", "-c", f"cd {place}; mount {place}/mnt 2>&1; echo $?").stdout

        assert f"{place}/layerfs: a directory with other things in it, no store (expected none" in done
        assert done.endswith(f"\n{mounthelper.USAGE}\n")
        assert mounted(household) == []
    assert os.listdir(place / "layerfs") == ["notes"]


def test_a_line_with_user_is_mounted_and_unmounted_by_an_ordinary_user(household: Household) -> None:
    point = household.place("mnt")
    with fstab(household, f"none {point} fuse.layerfs ro,user,noauto"):
        room, stranger = household.room(), household.room(STRANGER)
        refused = stranger.run("mount", point, check=False)
        room.run("mount", point)
        (found,) = mounted(household)
        names = set(room.run("ls", "-A", point).stdout.split())
        again = room.run("mount", point, check=False)
        seen_by_stranger = stranger.run("ls", point, check=False)
        unmounted_by_stranger = stranger.run("umount", point, check=False)
        stayed = mounted(household)
        room.run("umount", point)
        left = mounted(household)

    assert refused.returncode == mounthelper.FAILED
    assert "(expected a directory)" in refused.stderr
    assert (found.point, found.source, found.user) == (os.fsencode(point), b"none", UID)
    assert {"images", ".layerfs"} <= names
    assert again.returncode == mounthelper.FAILED
    assert "is there already" in again.stderr or "already mounted" in again.stderr
    assert seen_by_stranger.returncode != 0
    assert unmounted_by_stranger.returncode != 0
    assert stayed == [found]
    assert left == []
