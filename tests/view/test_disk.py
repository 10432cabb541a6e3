"""Paths that no system call takes: archives may have them, and tools walk them name by name."""

import gc
import os
import stat
from errno import EMFILE
from typing import NoReturn

import pytest

from layerfs.view.diff import DiffDirectory
from layerfs.view.directory import LISTED_AT_ONCE
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

SIZES = made(
    *[file(f"few/{number}", b"") for number in range(LISTED_AT_ONCE)],
    *[file(f"many/{number}", b"") for number in range(LISTED_AT_ONCE + 1)],
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
    monkeypatch.setattr("layerfs.view.disk._MAX_FAR", 1)
    with pytest.raises(OSError, match="more than 1 directories as deep") as failed:
        bottom(scene, "diff").entries()
    assert failed.value.errno == EMFILE


def sized(scene: Scene, name: bytes) -> DiffDirectory:
    scene.has(SIZES)
    found = scene.layer(SIZES, "diff").lookup(name)
    assert isinstance(found, DiffDirectory)
    return found


@pytest.mark.parametrize(("name", "count"), [(b"few", LISTED_AT_ONCE), (b"many", LISTED_AT_ONCE + 1)])
def test_a_listing_is_the_same_however_many_entries_it_has(scene: Scene, name: bytes, count: int) -> None:
    found = sized(scene, name)
    listed = dict(found.listing())
    assert set(listed) == {b"%d" % number for number in range(count)}
    assert all(found.lookup(entry) is node for entry, node in listed.items())


def test_what_cannot_be_looked_at_is_left_to_whoever_asks_for_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sized(scene, b"few")

    def lstat(path: str, *, dir_fd: int) -> NoReturn:
        raise FileNotFoundError(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", lstat)
        assert found.small_listing() is None
    assert len(list(found.listing())) == LISTED_AT_ONCE


def test_only_small_directories_are_had_at_once(scene: Scene) -> None:
    few, many = sized(scene, b"few").small_listing(), sized(scene, b"many").small_listing()
    assert few is not None
    assert len(few) == LISTED_AT_ONCE
    assert many is None
