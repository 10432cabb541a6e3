"""What a name costs that only the grammar allows, until the kernel is asked to forget it."""

import hashlib
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from layerfs.fuse.passing import KnownNames
from layerfs.fuse.prepared import entry_of
from layerfs.view.nodes import Node
from tests.view.scene import Scene

COUNT = 1000
NAMES = {
    "registry": (("images",), "r{}.example", 610),
    "component": (("images", "a.example", "b"), "c{}", 610),
    "tag": (("images", "a.example", "b"), "c:{}", 680),
    "image": (("images", "a.example", "b"), "c@sha256:{}", 900),
}
"""Kinds of made-up names: where they are looked up, what they are, the most bytes that one may cost."""


@pytest.fixture
def scene(store: Path) -> Iterator[Scene]:
    with closing(Scene(store)) as scene:
        yield scene


@pytest.mark.parametrize("kind", NAMES)
def test_a_made_up_name_costs_little(scene: Scene, kind: str) -> None:
    places, pattern, most = NAMES[kind]
    directory = scene.node(*places)
    known = KnownNames(lambda _: False)

    def meet(number: int) -> Node:
        hexes = hashlib.sha256(b"%d" % number).hexdigest()
        name = pattern.format(hexes if kind == "image" else number).encode()
        node = directory.lookup(name)
        assert isinstance(node, Node)
        entry = entry_of(node)
        scene.tree.inodes.remember(node)
        known.met(directory, name, node, entry)
        return node

    for number in range(100):
        meet(number)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(100, 100 + COUNT):
            meet(number)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(f"{kind}: {(after - before) / COUNT:.0f} bytes")  # noqa: T201 - the number is what this is for
    assert after - before <= most * COUNT
