"""mountinfo is read as the kernel writes it, and only dead mounts of ours are cleaned up."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import MountError
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.mounts import (
    filesystem_of,
    mounts_at,
    parse_mountinfo,
    read_mounts,
    unescape,
)


@pytest.mark.parametrize(
    ("escaped", "plain"),
    [
        pytest.param(rb"a\040b", b"a b", id="space"),
        pytest.param(rb"\054\012\011", b",\n\t", id="only escapes"),
        pytest.param(rb"a\134040", rb"a\040", id="an escaped backslash starts no escape"),
        pytest.param(rb"a\9bc", rb"a\9bc", id="not octal"),
        pytest.param(rb"a\04", rb"a\04", id="cut short"),
        pytest.param(rb"\777", rb"\777", id="more than a byte"),
    ],
)
def test_octal_escapes_are_undone_and_nothing_else(escaped: bytes, plain: bytes) -> None:
    assert unescape(escaped) == plain


@given(st.binary())
def test_what_the_kernel_escapes_comes_back(name: bytes) -> None:
    escaped = b"".join(b"\\%03o" % c if c in b" \t\n\\," else bytes((c,)) for c in name)
    assert unescape(escaped) == name


def test_optional_fields_and_overlay_options_are_told_apart() -> None:
    line = (
        rb"36 35 98:0 / /mnt\0402 rw,noatime shared:1 master:2 - overlay overlay "
        rb"rw,lowerdir+=/a\054b,lowerdir+=/c\0400"
    )
    (mount,) = parse_mountinfo(line + b"\nnonsense\n\n")
    assert (mount.mount_id, mount.parent_id, mount.device) == (36, 35, (98, 0))
    assert (mount.point, mount.fstype, mount.source) == (b"/mnt 2", b"overlay", b"overlay")
    assert mount.options == (b"rw", b"noatime")
    assert mount.super_options == (b"rw", b"lowerdir+=/a,b", b"lowerdir+=/c 0")
    assert not mount.is_layerfs


@pytest.mark.parametrize(
    ("options", "user"),
    [
        pytest.param(b"rw,user_id=1000,group_id=0,allow_other", 1000, id="fuse"),
        pytest.param(b"rw,group_id=0", None, id="none"),
        pytest.param(b"rw,user_id=-1", None, id="no number"),
    ],
)
def test_the_user_of_a_mount_is_whom_the_kernel_names(options: bytes, user: int | None) -> None:
    (mount,) = parse_mountinfo(b"36 35 0:9 / /mnt rw - fuse.layerfs layerfs " + options)
    assert mount.is_layerfs
    assert mount.user == user


def test_every_line_of_this_machine_is_understood() -> None:
    with open("/proc/self/mountinfo", "rb") as file:
        assert len(read_mounts()) == len(file.read().split(b"\n")) - 1


@pytest.fixture
def odd_point(tmp_path: Path) -> Iterator[Path]:
    point = tmp_path / "a b,c\\d"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "odd", point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)


def test_a_mount_at_an_odd_path_is_found_and_unmounted(odd_point: Path) -> None:
    (mount,) = mounts_at(odd_point)
    assert (mount.fstype, mount.source, mount.point) == (b"tmpfs", b"odd", os.fsencode(odd_point))
    device = odd_point.stat().st_dev
    assert mount.device == (os.major(device), os.minor(device))
    with Mountpoint.open(odd_point) as opened:
        assert opened.mount() == mount
        opened.unmount()
        assert opened.mount() is None
    assert mounts_at(odd_point) == []


def test_a_filesystem_is_known_by_its_device(odd_point: Path) -> None:
    assert filesystem_of(odd_point.stat().st_dev) == b"tmpfs"
    assert filesystem_of(os.makedev(4000, 4000)) is None


def test_a_symlink_to_the_point_is_as_good_as_the_point(odd_point: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(odd_point)
    assert len(mounts_at(link)) == 1


def test_mounts_of_others_are_left_alone(odd_point: Path) -> None:
    with Mountpoint.open(odd_point) as opened:
        assert opened.clean_up() == 0
    assert len(mounts_at(odd_point)) == 1


def test_a_mount_in_use_is_refused_with_advice_and_taken_lazily(odd_point: Path) -> None:
    fd = os.open(odd_point, os.O_RDONLY)
    try:
        with Mountpoint.open(odd_point) as opened:
            with pytest.raises(MountError, match="--lazy"):
                opened.unmount()
            opened.unmount(lazy=True)
        assert mounts_at(odd_point) == []
    finally:
        os.close(fd)


def test_unmounting_what_is_not_mounted_is_an_error_that_says_so(tmp_path: Path) -> None:
    with Mountpoint.open(tmp_path) as opened, pytest.raises(MountError, match="nothing is mounted"):
        opened.unmount()
