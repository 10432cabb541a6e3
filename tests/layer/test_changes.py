"""What a layer changes, against the model of the specification: the union before and after."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given

from layerfs.layer.changes import Changed, EntryKind, LayerEntry, Rights, Union
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
            rights = Rights(inode.fact.mode, *inode.fact.owner)
            stamp = (inode.fact.size or 0, inode.fact.mtime_ns)
            yield LayerEntry(path, _KINDS[inode.fact.kind], size, rights, stamp)


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


@given(stacks())
def test_rights_are_told_where_they_change(stack: Stack) -> None:
    union = Union()
    for number, layer in enumerate(stack.layers):
        before, after = model.apply(stack.layers[:number]), model.apply(stack.layers[: number + 1])
        found = {one.path: one for one in union.apply(entries_of(layer), marks(layer))}
        for path, one in found.items():
            assert one.rights == _rights((before if one.change == "removed" else after)[path])
            assert one.before == (_rights(before[path]) if one.change == "changed" else None)
        for path in (before.keys() & after.keys()) - {b""}:
            if _rights(before[path]) != _rights(after[path]):
                assert found[path].change == "changed"


def _rights(inode: model.Inode) -> Rights:
    return Rights(inode.fact.mode, *inode.fact.owner)


BASE = [directory("d"), file("d/a", b"12345"), file("d/b", b"123"), symlink("l", "d/a")]


def test_a_directory_listed_again_is_no_change() -> None:
    assert changes(BASE, [directory("d"), file("d/c", b"1")]) == {"d/c": ("added", 1, 0)}


def rights_of(*layers: Sequence[images.Entry]) -> dict[str, tuple[int, int, bool]]:
    """Return mode, owner and what only changed them, of what the last layer changes."""
    union = Union()
    found: list[Changed] = []
    for layer in layers:
        found = union.apply(entries_of(layer), marks(layer))
    return {one.path.decode(): (one.rights.mode, one.rights.uid, one.only_rights) for one in found}


@pytest.mark.parametrize(("entry", "only"), [
    (file("d/a", b"12345", mode=0o4755), True),
    (file("d/a", b"12345", uid=7), True),
    (file("d/a", b"12345"), False),
    (file("d/a", b"12345", mode=0o4755, mtime=1), False),
    (file("d/a", b"1234", mode=0o4755), False),
    (symlink("d/a", "12345", uid=7), False),
])  # fmt: skip
def test_another_mode_or_owner_is_told_from_other_bytes(entry: images.Entry, only: bool) -> None:
    ((_, _, found),) = rights_of(BASE, [entry]).values()
    assert found == only


def test_a_directory_changes_with_its_mode_unless_nobody_lists_it() -> None:
    assert rights_of(BASE, [directory("d", mode=0o1777)]) == {"d": (0o1777, 0, True)}
    private = [directory("d", mode=0o700, uid=3)]
    assert rights_of(BASE, private, [file("d/c", b"1")]) == {"d/c": (0o644, 0, False)}
    assert rights_of(BASE, private, [file("d/c", b"1")], [directory("d")]) == {"d": (0o755, 0, True)}
    implied_anew = rights_of(BASE, private, [whiteout("d"), file("d/c", b"1")])
    assert implied_anew["d"] == (0o755, 0, True)


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
        Union().apply([LayerEntry(b"d/f", "file", 1, Rights(0, 0, 0), (1, 0))], marks([]))
