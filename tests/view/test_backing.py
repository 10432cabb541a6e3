"""Paths that no system call takes: archives may have them, and tools walk them name by name."""

import gc
import os
import stat
from errno import EMFILE

import pytest

from layerfs.view.nodes import Node
from tests.support.images import directory, file, symlink
from tests.view.scene import Scene, made, read

DEPTH = 40
COMPONENT = "x" * 250
DEEP = "/".join([COMPONENT] * DEPTH)
LAYER = made(
    directory(DEEP, 0o700),
    file(f"{DEEP}/file", b"deep", xattrs={"user.note": b"x"}),
    symlink(f"{DEEP}/link", "target"),
)


def bottom(scene: Scene, form: str) -> Node:
    node = scene.layer(LAYER, form)
    for _ in range(DEPTH):
        found = node.lookup(COMPONENT.encode())
        assert isinstance(found, Node)
        node = found
    return node


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("form", ["diff", "lower"])
def test_what_lies_deeper_than_a_path_is_long_is_as_good_as_anything(scene: Scene, form: str) -> None:
    scene.has(LAYER)
    node = bottom(scene, form)
    assert node.attributes().mode == stat.S_IFDIR | 0o700
    assert node.lookup(b"x" * 4000) is None
    listing = node.entries()
    assert not isinstance(listing, type(None))
    assert sorted(name for name, _ in listing) == [b"file", b"link"]  # type: ignore[union-attr]  # it is here
    found, link = node.lookup(b"file"), node.lookup(b"link")
    assert isinstance(found, Node)
    assert isinstance(link, Node)
    assert read(found) == b"deep"
    assert found.xattrs() == {b"user.note": b"x"}
    assert link.readlink() == b"target"
    assert node.xattrs() == {}
    assert node.lookup(b"absent") is None


def test_deep_directories_are_closed_with_the_last_node_of_their_layer(scene: Scene) -> None:
    scene.has(LAYER)
    scene.layer(LAYER, "diff").lookup(b"shelf")
    before = open_files()
    node = bottom(scene, "diff")
    assert open_files() == before + 3, "one for every 3500 bytes but the last"
    del node
    assert open_files() == before


def test_a_hostile_layer_does_not_get_all_descriptors(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.has(LAYER)
    monkeypatch.setattr("layerfs.view.backing._MAX_FAR", 1)
    with pytest.raises(OSError, match="more than 1 directories as deep") as failed:
        bottom(scene, "diff").entries()
    assert failed.value.errno == EMFILE
