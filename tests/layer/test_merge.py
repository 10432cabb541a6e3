"""The rules of the union, against the model of the specification and one by one."""

from collections.abc import Iterable, Iterator, Sequence

import pytest
from hypothesis import given

from layerfs.layer.kinds import Kind, kind_of
from layerfs.layer.merge import LayerMarks, Merged, marks_of, merge_entries, merge_entry, merge_root
from layerfs.layer.paths import join, split
from tests.layer.records import tables_of
from tests.support import model
from tests.support.canary import Fact
from tests.support.stacks import Stack, patiently, stacks

DIRECTORY, OTHER = Kind.DIRECTORY, Kind.OTHER


def marks(*, hides: bool = False, opaque: bool = False, implied: bool = False) -> LayerMarks:
    """Markers of a layer about the path ``x``."""
    return LayerMarks(
        hidden=frozenset([b"x"] if hides else []),
        opaque=frozenset([b"x"] if opaque else []),
        implied=frozenset([b"x"] if implied else []),
        markers=frozenset(),
    )


LISTED, HIDING, OPAQUE, IMPLIED = marks(), marks(hides=True), marks(opaque=True), marks(implied=True)
IMPLIED_OPAQUE = marks(implied=True, opaque=True)
IMPLIED_HIDING = marks(implied=True, hides=True)

Layer = tuple[LayerMarks, Kind | None]


@pytest.mark.parametrize(
    ("top_first", "visible"),
    [
        pytest.param([(LISTED, None), (LISTED, None)], None, id="nothing anywhere"),
        pytest.param([(LISTED, OTHER), (LISTED, OTHER)], Merged(OTHER, (1,), 1), id="the upper file wins"),
        pytest.param([(LISTED, None), (LISTED, OTHER)], Merged(OTHER, (0,), 0), id="a lower file shows"),
        pytest.param([(HIDING, None), (LISTED, OTHER)], None, id="a whiteout hides a file"),
        pytest.param([(HIDING, None), (LISTED, DIRECTORY)], None, id="a whiteout hides a directory"),
        pytest.param(
            [(HIDING, OTHER), (LISTED, DIRECTORY)],
            Merged(OTHER, (1,), 1),
            id="a whiteout spares its own layer",
        ),
        pytest.param(
            [(HIDING, DIRECTORY), (LISTED, DIRECTORY)],
            Merged(DIRECTORY, (1,), 1),
            id="a directory beside a whiteout of it starts anew",
        ),
        pytest.param(
            [(LISTED, OTHER), (HIDING, None), (LISTED, OTHER)], Merged(OTHER, (2,), 2), id="made again"
        ),
        pytest.param(
            [(LISTED, DIRECTORY), (LISTED, None), (LISTED, DIRECTORY)],
            Merged(DIRECTORY, (2, 0), 2),
            id="directories merge over a layer without one",
        ),
        pytest.param(
            [(LISTED, DIRECTORY), (LISTED, OTHER), (LISTED, DIRECTORY)],
            Merged(DIRECTORY, (2,), 2),
            id="a file between directories parts them",
        ),
        pytest.param(
            [(LISTED, OTHER), (LISTED, DIRECTORY)], Merged(OTHER, (1,), 1), id="a file replaces a directory"
        ),
        pytest.param(
            [(OPAQUE, DIRECTORY), (LISTED, DIRECTORY)],
            Merged(DIRECTORY, (1,), 1),
            id="opaque ends the contents",
        ),
        pytest.param(
            [(IMPLIED, DIRECTORY), (LISTED, DIRECTORY)],
            Merged(DIRECTORY, (1, 0), 0),
            id="an implied directory leaves attributes alone",
        ),
        pytest.param(
            [(IMPLIED_OPAQUE, DIRECTORY), (LISTED, DIRECTORY)],
            Merged(DIRECTORY, (1,), 0),
            id="attributes are inherited through an opaque marker",
        ),
        pytest.param(
            [(IMPLIED_OPAQUE, DIRECTORY), (IMPLIED, DIRECTORY), (LISTED, DIRECTORY)],
            Merged(DIRECTORY, (2,), 0),
            id="and on through layers that imply the directory",
        ),
        pytest.param(
            [(IMPLIED_OPAQUE, DIRECTORY), (LISTED, OTHER), (LISTED, DIRECTORY)],
            Merged(DIRECTORY, (2,), 2),
            id="but not through a file",
        ),
        pytest.param(
            [(IMPLIED_HIDING, DIRECTORY), (LISTED, DIRECTORY)],
            Merged(DIRECTORY, (1,), 1),
            id="nor through a whiteout",
        ),
        pytest.param(
            [(IMPLIED, DIRECTORY), (HIDING, None), (LISTED, DIRECTORY)],
            Merged(DIRECTORY, (2,), 2),
            id="nor through a whiteout of a layer between",
        ),
        pytest.param(
            [(IMPLIED, DIRECTORY), (IMPLIED, DIRECTORY)],
            Merged(DIRECTORY, (1, 0), 1),
            id="a directory that no layer lists has the attributes of the topmost",
        ),
    ],
)
def test_a_name_merges(top_first: Sequence[Layer], visible: Merged | None) -> None:
    layers = top_first[::-1]
    parent = Merged(DIRECTORY, tuple(reversed(range(len(layers)))), 0)
    found = [mark for mark, _ in layers]
    assert merge_entry(b"x", parent, found, lambda number: layers[number][1]) == visible
    listed = merge_entries(b"", parent, found, lambda number: [(b"x", layers[number][1])])
    assert listed == ({} if visible is None else {b"x": visible})


def test_only_layers_that_show_in_the_parent_are_asked() -> None:
    asked = []

    def kind(number: int) -> Kind | None:
        asked.append(number)
        return None

    merge_entry(b"x", Merged(DIRECTORY, (4, 2), 4), [LISTED] * 5, kind)
    assert asked == [4, 2]


@pytest.mark.parametrize("top", [(LISTED, OTHER), (HIDING, None), (OPAQUE, DIRECTORY)])
def test_no_layer_is_asked_once_nothing_below_matters(top: Layer) -> None:
    def kind(number: int) -> Kind | None:
        assert number == 1, "asked a layer that cannot change the answer"
        return top[1]

    merge_entry(b"x", Merged(DIRECTORY, (1, 0), 1), [LISTED, top[0]], kind)


@pytest.mark.parametrize("name", [b".wh.x", b".wh..wh..opq", b".wh..wh.plnk", b".wh."])
def test_markers_are_no_entries_of_the_union(name: bytes) -> None:
    parent = Merged(DIRECTORY, (0,), 0)
    assert merge_entry(name, parent, [LISTED], lambda _: OTHER) is None
    assert merge_entries(b"", parent, [LISTED], lambda _: [(name, OTHER)]) == {}


def test_a_whiteout_device_counts_as_nothing_and_other_devices_do_not() -> None:
    assert kind_of(0o020000, 0) is None
    assert kind_of(0o020666, 0x103) is OTHER
    assert kind_of(0o060000, 0) is OTHER
    assert kind_of(0o040755, 0) is DIRECTORY


def test_a_stack_without_layers_has_no_root() -> None:
    with pytest.raises(ValueError, match="no root"):
        merge_root([])


def test_paths_split_and_join() -> None:
    for path in (b"a", b"a/b", b"a/b/c"):
        assert join(*split(path)) == path
    assert split(b"a") == (b"", b"a")


class Union:
    """The union of a stack of model layers, as a view would ask for it."""

    def __init__(self, stack: Stack) -> None:
        self.layers = [model.changeset(layer) for layer in stack.layers]
        self.marks = [marks_of(tables_of(layer)) for layer in stack.layers]

    def kind(self, number: int, path: bytes) -> Kind | None:
        inode = self.layers[number].tree.get(path)
        return None if inode is None else DIRECTORY if inode.is_directory else OTHER

    def listing(self, number: int, directory: bytes) -> Iterable[tuple[bytes, Kind | None]]:
        for path in self.layers[number].tree:
            if path and split(path)[0] == directory:
                yield split(path)[1], self.kind(number, path)

    def walk(self, path: bytes, merged: Merged) -> Iterator[tuple[bytes, Merged]]:
        yield path, merged
        if not merged.is_directory:
            return
        children = merge_entries(path, merged, self.marks, lambda number: self.listing(number, path))
        for name, child in children.items():
            yield from self.walk(join(path, name), child)

    def fact(self, path: bytes, merged: Merged) -> Fact:
        return self.layers[merged.attributes].tree[path].fact


@patiently
@given(stack=stacks())
def test_the_union_is_what_the_specification_says(stack: Stack) -> None:
    union = Union(stack)
    found = {path: union.fact(path, merged) for path, merged in union.walk(b"", merge_root(union.marks))}
    assert found == {path: inode.fact for path, inode in model.apply(stack.layers).items()}


@patiently
@given(stack=stacks())
def test_looking_names_up_finds_what_a_listing_shows(stack: Stack) -> None:
    union = Union(stack)
    shown = dict(union.walk(b"", merge_root(union.marks)))
    names = {split(path)[1] for layer in union.layers for path in layer.tree if path}
    for directory, parent in shown.items():
        for name in names if parent.is_directory else ():
            path = join(directory, name)
            found = merge_entry(path, parent, union.marks, lambda number, path=path: union.kind(number, path))  # type: ignore[misc]
            assert found == shown.get(path)
