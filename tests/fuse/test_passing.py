"""What a name costs that only the grammar allows, until the kernel is asked to forget it."""

import hashlib
import tracemalloc
from collections.abc import Callable
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


@pytest.mark.parametrize("kind", NAMES)
def test_a_made_up_name_costs_little(store: Path, kind: str) -> None:
    # What is there once for the process, or made by other threads of the tests meanwhile, counts, too.
    most = NAMES[kind][-1]
    assert any(cost(store, kind, attempt) <= most * COUNT for attempt in range(3))


def cost(store: Path, kind: str, attempt: int) -> int:
    """Return the bytes that names of one kind cost, all of them new to the process."""
    with closing(Scene(store)) as scene:
        meet = meeting(scene, kind)
        first = attempt * 10 * COUNT
        for number in range(first, first + 100):
            meet(number)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(first + 100, first + 100 + COUNT):
                meet(number)
            found = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
    print(f"{kind}: {found / COUNT:.0f} bytes")  # noqa: T201 - the number is what this is for
    return found


def meeting(scene: Scene, kind: str) -> Callable[[int], None]:
    """Return what has the kernel told of the name of a kind that has a number."""
    places, pattern, _ = NAMES[kind]
    directory = scene.node(*places)
    known = KnownNames(lambda _: False)

    def meet(number: int) -> None:
        hexes = hashlib.sha256(b"%d" % number).hexdigest()
        name = pattern.format(hexes if kind == "image" else number).encode()
        node = directory.lookup(name)
        assert isinstance(node, Node)
        entry = entry_of(node)
        scene.tree.inodes.remember(node)
        known.met(directory, name, node, entry)

    return meet
