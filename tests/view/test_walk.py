"""Walking layers and stacks without a mount, as `layerfs tree` and `layerfs export` do."""

from layerfs.view.walk import layer_entries, merged_root, walk
from tests.support.images import directory, fifo, file, hardlink, symlink, whiteout
from tests.view.scene import Scene, made

BASE = made(
    directory("d"),
    file("d/f", b"12345"),
    hardlink("d/again", "d/f"),
    symlink("d/l", "f"),
    fifo("p"),
    file("gone", b"x"),
)
TOP = made(whiteout("gone"), file("new", b"123"))


def test_a_layer_lists_its_entries_and_counts_the_bytes_of_a_file_once(scene: Scene) -> None:
    scene.has(BASE, TOP)
    layers = [scene.storage.open_layer(each.digest) for each in (BASE, TOP)]
    base, top = (layer for layer in layers if layer is not None)

    found = {(entry.path, entry.kind): entry.size for entry in layer_entries(base)}
    assert set(found) == {
        (b"d", "directory"), (b"d/f", "file"), (b"d/again", "file"), (b"d/l", "link"), (b"p", "pipe"),
        (b"gone", "file"),
    }  # fmt: skip
    assert sorted(found.values()) == [0, 0, 0, 0, 1, 5]
    assert [entry.path for entry in layer_entries(top)] == [b"new"]


def test_a_stack_is_walked_in_order_and_shows_no_markers(scene: Scene) -> None:
    scene.has(BASE, TOP)
    layers = [layer for each in (BASE, TOP) if (layer := scene.storage.open_layer(each.digest)) is not None]

    root = merged_root(layers)

    assert root is not None
    assert [path for path, _ in walk(root)] == [b"", b"d", b"d/again", b"d/f", b"d/l", b"new", b"p"]
    assert merged_root([]) is None
