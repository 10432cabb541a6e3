"""Nodes over a source that is no disk: what they need of a layer is `LayerSource`, and nothing else."""

import stat

import pytest

from layerfs.view.diff import DiffDirectory
from layerfs.view.inodes import InodeTable
from layerfs.view.lower import LowerDirectory
from layerfs.view.merged import Stack
from layerfs.view.nodes import FileContent, Node
from tests.view.contents import DIRECTORY, FILE, LINK, Contents, Entry, tree
from tests.view.scene import names

BASE = {
    b"etc": Entry(2, DIRECTORY, attributes={b"user.note": b"n", b"trusted.overlay.opaque": b"y"}),
    b"etc/motd": Entry(3, FILE, 5, st_nlink=2, st_uid=70_000),
    b"etc/copy": Entry(3, FILE, 5, st_nlink=2, st_uid=70_000),
    b"etc/link": Entry(4, LINK, 4, target=b"motd"),
    b"gone": Entry(5, FILE, 1),
}
TOP = {b".wh.gone": Entry(2, FILE), b"new": Entry(3, FILE, 9)}


def test_a_layer_is_browsed_without_a_disk() -> None:
    inodes = InodeTable()
    layer = tree(Contents(b"base", BASE), inodes)
    root = DiffDirectory(2, layer, b"", Entry(1, DIRECTORY))

    etc = root.lookup(b"etc")
    assert isinstance(etc, Node)
    assert names(root.entries()) == [b"etc", b"gone"]
    assert etc.xattrs() == {b"user.note": b"n"}
    motd, copy, link = (etc.lookup(name) for name in (b"motd", b"copy", b"link"))
    assert isinstance(motd, Node)
    assert isinstance(link, Node)
    assert motd is copy
    found = motd.attributes()
    assert (found.mode, found.size, found.nlink, found.uid, found.blocks) == (FILE, 5, 2, 70_000, 1)
    assert motd.open() == FileContent(-1, b"object of etc/motd", 5)
    assert link.readlink() == b"motd"
    assert root.lookup(b"absent") is None


@pytest.mark.parametrize("count", [1, 1000])
def test_directories_of_any_size_list_the_same(count: int) -> None:
    files = {b"%04d" % number: Entry(10 + number, FILE) for number in range(count)}
    root = DiffDirectory(2, tree(Contents(b"many", files), InodeTable()), b"", Entry(1, DIRECTORY))

    assert names(root.entries()) == sorted(files)


def test_lower_is_right_on_a_disk_without_devices_and_overlay_attributes() -> None:
    """The record says what the disk could not hold."""
    files = {
        b".wh.gone": Entry(2, FILE),
        b"clear": Entry(3, DIRECTORY),
        b"clear/.wh..wh..opq": Entry(4, FILE),
    }
    layer = tree(Contents(b"some", files), InodeTable(), whiteouts=b".wh.gone\0", opaques=b"clear\0")
    lower = LowerDirectory(2, layer, b"", Entry(1, DIRECTORY))
    assert names(lower.entries()) == [b"clear", b"gone"]
    gone, clear = lower.lookup(b"gone"), lower.lookup(b"clear")
    assert isinstance(gone, Node)
    assert isinstance(clear, Node)
    assert stat.S_ISCHR(gone.attributes().mode)
    assert clear.xattrs() == {b"trusted.overlay.opaque": b"y", b"user.overlay.opaque": b"y"}
    assert names(clear.entries()) == []


def test_markers_of_a_source_become_whiteouts_and_hide() -> None:
    inodes = InodeTable()
    base = tree(Contents(b"base", BASE), inodes)
    top = tree(Contents(b"top", TOP), inodes, whiteouts=b".wh.gone\0")
    lower = LowerDirectory(2, top, b"", Entry(1, DIRECTORY))
    whiteout = lower.lookup(b"gone")
    assert isinstance(whiteout, Node)
    assert stat.S_ISCHR(whiteout.attributes().mode)
    assert names(lower.entries()) == [b"gone", b"new"]

    merged = Stack(b"stack", [base, top], inodes).root(3)
    assert merged is not None
    assert names(merged.entries()) == [b"etc", b"new"]
    assert merged.lookup(b"gone") is None
