"""What stands beside the markers for the kernel's sake, whatever the order of the archive."""

import itertools
import stat
from collections.abc import Sequence
from typing import Any

import pytest

from layerfs.errors import InvalidWhiteout
from tests.extract.extracting import Extract, Tree
from tests.extract.overlay_shapes import SHAPES
from tests.layer.headers import END, header
from tests.support.images import Entry, directory, file, opaque, whiteout

pytestmark = pytest.mark.needs_root

OPAQUE = {"trusted.overlay.opaque": b"y"}


def _devices(tree: Tree) -> set[str]:
    return {
        name
        for name in tree.names()
        if stat.S_ISCHR(tree.lstat(name).st_mode) and tree.lstat(name).st_rdev == 0
    }


def _opaque(tree: Tree) -> set[str]:
    return {name for name in {".", *tree.names()} if tree.xattrs(name) == OPAQUE}


@pytest.mark.parametrize(("entries", "devices", "opaques"), SHAPES)
def test_markers_get_their_overlay_form_in_every_order(
    extract: Extract, entries: Sequence[Entry], devices: set[str], opaques: set[str]
) -> None:
    for order in itertools.permutations(entries):
        tree = extract(*order)

        assert _devices(tree) == devices
        assert _opaque(tree) == opaques


@pytest.mark.parametrize(("entries", "devices", "opaques"), SHAPES)
def test_without_whiteout_devices_there_are_markers_only(
    extract: Extract, entries: Sequence[Entry], devices: set[str], opaques: set[str]
) -> None:
    tree = extract(*entries, whiteout_devices=False)

    assert _devices(tree) == set()
    assert _opaque(tree) == set()


def test_markers_are_kept_and_recorded(extract: Extract) -> None:
    entries = [
        whiteout("d/y", mtime=7), whiteout("d/x"), whiteout("x"), opaque("d"), opaque(""),
        file(".wh..wh.aufs"),
        whiteout("x"),
    ]  # fmt: skip
    tree = extract(*entries)

    assert tree.listed("whiteouts") == (".wh..wh.aufs", ".wh.x", "d/.wh.x", "d/.wh.y")
    assert tree.listed("opaques") == ("", "d")
    assert tree.lstat("d/.wh.y").st_mtime_ns == 7 * 10**9


def test_whiteouts_do_not_change_the_times_of_their_directory(extract: Extract) -> None:
    tree = extract(directory("d", mtime=5), whiteout("d/x"), whiteout("i/x"))

    assert tree.lstat("d").st_mtime_ns == 5 * 10**9
    assert tree.lstat("i").st_mtime_ns == 0


def test_an_unprivileged_writer_uses_its_own_attribute(extract: Extract) -> None:
    tree = extract(opaque("d"), owner="user")

    assert tree.xattrs("d") == {"user.overlay.opaque": b"y"}


def test_markers_of_a_directory_that_became_a_file_are_gone(extract: Extract) -> None:
    tree = extract(whiteout("d/x"), opaque("d"), whiteout("e"), file("d", b"now a file"))

    assert (tree.listed("whiteouts"), tree.listed("opaques")) == ((".wh.e",), ())
    assert tree.names() == {".wh.e", "e", "d"}


def test_a_name_of_full_length_can_be_a_marker(extract: Extract) -> None:
    tree = extract(whiteout("x" * 251))

    assert _devices(tree) == {"x" * 251}


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh.", "./.wh..", ".wh./x"])
def test_markers_that_hide_nothing_are_refused(extract: Extract, name: str) -> None:
    with pytest.raises(InvalidWhiteout):
        extract(file(name))


@pytest.mark.parametrize("name", [".wh.d/f", "a/.wh.d/e/f", ".wh..wh..opq/f"])
def test_entries_below_a_marker_are_refused(extract: Extract, name: str) -> None:
    with pytest.raises(InvalidWhiteout, match="below a marker"):
        extract(file(name))


@pytest.mark.parametrize("owner", ["root", "user"])
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"type": b"3"}, id="a device 0:0"),
        pytest.param({"type": b"3", "major": 1, "minor": 3}, id="a device"),
        pytest.param({"type": b"4", "major": 8}, id="a block device"),
        pytest.param({"type": b"6"}, id="a fifo"),
        pytest.param({"mode": 0o140644}, id="a socket"),
        pytest.param({"type": b"1", "link": b".wh..wh.aufs"}, id="a hard link to something absent"),
        pytest.param({"type": b"2", "link": b"absent"}, id="a symlink"),
        pytest.param({"type": b"5"}, id="a directory"),
    ],
)
def test_markers_count_by_name_whatever_their_type(
    extract: Extract, fields: dict[str, Any], owner: str
) -> None:
    tree = extract(
        archive=header(b"d/.wh.a", **fields) + header(b"e/.wh..wh..opq", **fields) + END, owner=owner
    )

    assert tree.listed("whiteouts") == ("d/.wh.a",)
    assert tree.listed("opaques") == ("e",)
    assert _devices(tree) == {"d/a"}
