"""What a layer changes, against the model of the specification: the union before and after."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given

from layerfs.layer.changes import Changed, EntryKind, LayerEntry, Union
from layerfs.layer.merge import LayerMarks, marks_of
from tests.layer.records import tables_of
from tests.support import images, model
from tests.support.images import directory, file, opaque, symlink, whiteout
from tests.support.stacks import Stack, stacks

_KINDS: dict[str, EntryKind] = {
    "-": "file", "d": "directory", "l": "link", "p": "pipe", "c": "device", "b": "device",
}  # fmt: skip


def entries_of(layer: Sequence[images.Entry]) -> Iterator[LayerEntry]:
    """Yield what a walk over the extracted layer yields."""
    seen = set()
    tree = model.changeset(layer).tree
    for path in sorted(tree):
        inode = tree[path]
        size = inode.fact.size or 0 if inode.fact.kind == "-" and inode not in seen else 0
        seen.add(inode)
        if path:
            yield LayerEntry(path, _KINDS[inode.fact.kind], size)


def marks(layer: Sequence[images.Entry]) -> LayerMarks:
    return marks_of(tables_of(layer))


def changes(*layers: Sequence[images.Entry]) -> dict[str, tuple[str, int, int]]:
    """Return what the last layer changes."""
    union = Union()
    found: list[Changed] = []
    for layer in layers:
        found = union.apply(entries_of(layer), marks(layer))
    return {one.path.decode(): (one.change, one.size, one.replaced) for one in found}


@given(stacks())
def test_added_and_removed_lead_from_one_union_to_the_next(stack: Stack) -> None:
    union = Union()
    before: set[bytes] = set()
    for number, layer in enumerate(stack.layers):
        found = union.apply(entries_of(layer), marks(layer))
        tree = model.apply(stack.layers[: number + 1])
        after = set(tree) - {b""}
        assert {one.path for one in found if one.change == "added"} == after - before
        assert {one.path for one in found if one.change == "removed"} == before - after
        changed = {one.path for one in found if one.change == "changed"}
        assert changed <= before & after
        assert {path for path in before & after if _brings(layer, path)} <= changed
        assert len(found) == len({one.path for one in found})
        before = after


def _brings(layer: Sequence[images.Entry], path: bytes) -> bool:
    inode = model.changeset(layer).tree.get(path)
    return inode is not None and not inode.is_directory


BASE = [directory("d"), file("d/a", b"12345"), file("d/b", b"123"), symlink("l", "d/a")]


def test_a_directory_listed_again_is_no_change() -> None:
    assert changes(BASE, [directory("d"), file("d/c", b"1")]) == {"d/c": ("added", 1, 0)}


def test_a_file_in_the_place_of_another_is_changed_and_hides_its_bytes() -> None:
    assert changes(BASE, [file("d/a", b"1")]) == {"d/a": ("changed", 1, 5)}


def test_a_whiteout_removes_all_below() -> None:
    assert changes(BASE, [whiteout("d")]) == {
        "d": ("removed", 0, 0),
        "d/a": ("removed", 5, 5),
        "d/b": ("removed", 3, 3),
    }


def test_what_is_hidden_and_brought_again_is_changed() -> None:
    assert changes(BASE, [opaque("d"), file("d/a", b"1")]) == {
        "d/a": ("changed", 1, 5),
        "d/b": ("removed", 3, 3),
    }


def test_a_file_in_the_place_of_a_directory_removes_what_was_in_it() -> None:
    assert changes(BASE, [file("d", b"1")]) == {
        "d": ("changed", 1, 0),
        "d/a": ("removed", 5, 5),
        "d/b": ("removed", 3, 3),
    }


def test_an_entry_before_its_directory_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="before its directory"):
        Union().apply([LayerEntry(b"d/f", "file", 1)], marks([]))
