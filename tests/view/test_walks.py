"""Walks over the whole tree, as tools do them: no request, and nothing stays once it is forgotten."""

import gc
import stat
from collections.abc import Callable, Iterator

import pytest

from layerfs.needs import Need
from layerfs.view.content import ContentFile
from layerfs.view.directory import ContentDirectory
from layerfs.view.nodes import Node
from tests.support.images import directory, file, hardlink, image, index, whiteout
from tests.view.scene import AMD64, ARM64, DEMO, Scene, made

BASE = made(
    *(entry for n in range(20) for entry in [directory(f"d{n}"), *(file(f"d{n}/f{m}") for m in range(20))]),
    hardlink("again", "d0/f0"),
)
TOP = made(whiteout("d1"), file("d2/new"), whiteout("d3/f3"))
IMAGE = image(BASE.built, TOP.built, platform=AMD64)
INDEX = index(IMAGE, image(BASE.built, platform=ARM64))

Visit = Callable[[Node], None]


def walk(node: Node, visit: Visit = lambda _: None) -> Iterator[bytes]:
    """List everything below *node* without following links, as ``ls -lR`` and ``find`` do."""
    listing = node.entries()
    assert not isinstance(listing, Need), listing
    for name, child in listing:
        visit(child)
        child.xattrs()
        kind = stat.S_IFMT(child.attributes().mode)
        if kind == stat.S_IFDIR:
            for below in walk(child, visit):
                yield name + b"/" + below
        elif kind == stat.S_IFREG:
            assert not isinstance(child.open(), Need)
        yield name


def an_empty_store(_: Scene) -> None:
    pass


def unresolved_documents(scene: Scene) -> None:
    scene.storage.refs.write(DEMO.with_tag("latest"), IMAGE.digest)


def documents(scene: Scene) -> None:
    scene.knows(IMAGE)
    scene.knows(INDEX, "index")


def one_layer(scene: Scene) -> None:
    documents(scene)
    scene.has(BASE)


def a_stack(scene: Scene) -> None:
    one_layer(scene)
    scene.has(TOP)
    scene.has_cover(BASE, TOP)


@pytest.mark.parametrize("fill", [an_empty_store, unresolved_documents, documents, one_layer, a_stack])
def test_whoever_walks_without_following_links_needs_nothing(
    scene: Scene, fill: Callable[[Scene], None]
) -> None:
    fill(scene)
    found = list(walk(scene.tree.root))
    assert found
    assert list(walk(scene.tree.root)) == found


def test_what_the_kernel_has_forgotten_is_not_in_memory(scene: Scene) -> None:
    a_stack(scene)
    inodes, root = scene.tree.inodes, scene.tree.root
    for _ in range(2):
        counts: dict[int, int] = {}

        def count(node: Node, counts: dict[int, int] = counts) -> None:
            inodes.remember(node)
            counts[node.ino] = counts.get(node.ino, 0) + 1

        seen = len(list(walk(root, count)))
        assert len(inodes) == len(counts) + 1
        assert seen == sum(counts.values())
        assert content_nodes() > len(counts) // 2
        for ino, times in counts.items():
            inodes.forget(ino, times)
        assert len(inodes) == 1
        assert content_nodes() == 0


def content_nodes() -> int:
    gc.collect()
    return sum(isinstance(one, ContentFile | ContentDirectory) for one in gc.get_objects())
