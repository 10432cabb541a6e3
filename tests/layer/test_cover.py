"""What the cover of a stack holds."""

import os
from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given

from layerfs.errors import InvalidWhiteout
from layerfs.layer.cover import Cover, CoverDirectory, LayerKind, LayerNames, plan_cover, plan_fuse_cover
from layerfs.layer.kinds import Kind
from layerfs.layer.paths import split
from layerfs.layer.tables import Tables
from tests.layer.records import tables_of
from tests.support import model
from tests.support.images import Entry, directory, file, opaque, whiteout
from tests.support.stacks import Stack, patiently, stacks

Layers = Sequence[Sequence[Entry]]
Planner = Callable[[Sequence[Tables], LayerKind, LayerNames], Cover]


def plan(layers: Layers, planner: Planner = plan_cover) -> Cover:
    """Plan the cover of a stack, base first, as a store would."""
    trees = [model.changeset(layer).tree for layer in layers]

    def kind(number: int, path: bytes) -> Kind | None:
        inode = trees[number].get(path)
        return None if inode is None else Kind.DIRECTORY if inode.is_directory else Kind.OTHER

    def names(number: int, path: bytes) -> set[bytes]:
        listed = {os.fsencode(entry.name) for entry in layers[number]} | trees[number].keys()
        return {split(other)[1] for other in listed - {b"", b"."} if split(other)[0] == path}

    return planner([tables_of(layer) for layer in layers], kind, names)


def no_names(number: int, path: bytes) -> list[bytes]:
    raise AssertionError(f"listed {path!r} of layer {number} (expected only where a root is opaque)")


ROOT = directory(".")


@pytest.mark.parametrize(
    ("layers", "directories", "whiteouts"),
    [
        pytest.param([], [], [], id="no layers"),
        pytest.param([[ROOT, file("a")]], [(b"", 0)], [], id="nothing to mend"),
        pytest.param([[file("a")]], [(b"", 0)], [], id="a root that nothing lists"),
        pytest.param([[ROOT], [file("a")]], [(b"", 0)], [], id="the root's attributes come from below"),
        pytest.param(
            [[ROOT, file("a")], [ROOT, whiteout("a")]], [(b"", 1)], [b".wh.a"], id="a marker in the root"
        ),
        pytest.param(
            [[ROOT, directory("d"), file("d/a")], [whiteout("d/a")]],
            [(b"", 0), (b"d", 0)],
            [b"d/.wh.a"],
            id="a marker in an implied directory",
        ),
        pytest.param(
            [[ROOT, whiteout("a"), file(".wh..wh.plnk"), opaque("d")]],
            [(b"", 0), (b"d", 0)],
            [b".wh..wh.plnk", b".wh.a", b"d/.wh..wh..opq"],
            id="markers of a base layer, of every sort",
        ),
        pytest.param(
            [[ROOT, directory("tmp", 0o1777)], [ROOT, file("tmp/x")]],
            [(b"", 1), (b"tmp", 0)],
            [],
            id="an implied directory over a listed one",
        ),
        pytest.param(
            [[ROOT, file("tmp/y")], [ROOT, file("tmp/x")]], [(b"", 1)], [], id="implied and never listed"
        ),
        pytest.param(
            [[ROOT, directory("d")], [opaque("d")]],
            [(b"", 0), (b"d", 0)],
            [b"d/.wh..wh..opq"],
            id="attributes through an opaque marker",
        ),
        pytest.param(
            [[ROOT, directory("d")], [whiteout("d"), file("d/x")]],
            [(b"", 0)],
            [b".wh.d"],
            id="no attributes through a whiteout",
        ),
        pytest.param(
            [[ROOT, whiteout("d/a")], [whiteout("d")]],
            [(b"", 0)],
            [b".wh.d"],
            id="a deleted directory is not brought back for its marker",
        ),
        pytest.param(
            [[ROOT, whiteout("d/e/a")], [opaque("d")]],
            [(b"", 0), (b"d", 1)],
            [b"d/.wh..wh..opq"],
            id="nor an emptied one",
        ),
        pytest.param(
            [[ROOT, whiteout("d/a")], [ROOT, file("d")]], [(b"", 1)], [], id="nor one that a file replaced"
        ),
        pytest.param(
            [[ROOT, whiteout("d/a")], [ROOT, file("d")], [ROOT, whiteout("d/b")]],
            [(b"", 2), (b"d", 2)],
            [b"d/.wh.b"],
            id="the marker below a replaced directory stays hidden",
        ),
        pytest.param(
            [[ROOT, directory("d"), directory("d/e"), file("d/e/f")], [whiteout("d/e/f")]],
            [(b"", 0), (b"d", 0), (b"d/e", 0)],
            [b"d/e/.wh.f"],
            id="the way to a marker",
        ),
        pytest.param(
            [[ROOT, whiteout("a")], [ROOT, whiteout("a")]], [(b"", 1)], [b".wh.a"], id="one marker twice"
        ),
    ],
)
def test_a_cover_holds(
    layers: Layers, directories: Sequence[tuple[bytes, int]], whiteouts: Sequence[bytes]
) -> None:
    expected = Cover(tuple(CoverDirectory(*found) for found in directories), tuple(whiteouts))
    assert plan(layers) == expected


@pytest.mark.parametrize(
    ("layers", "whiteouts"),
    [
        pytest.param([[ROOT, opaque("")]], [b".wh..wh..opq"], id="of a base layer"),
        pytest.param(
            [[ROOT, file("a"), directory("d"), file("d/x"), whiteout("c")], [ROOT, opaque("")]],
            [b".wh..wh..opq", b".wh.c", b"a", b"d"],
            id="above names, directories and markers",
        ),
        pytest.param(
            [[ROOT, directory("d"), file("d/x"), file("d/y")], [ROOT, opaque("")], [ROOT, file("d/y")]],
            [b".wh..wh..opq", b"d/x"],
            id="between directories of one name",
        ),
        pytest.param(
            [[ROOT, file("d/e/x")], [ROOT, opaque(""), whiteout("d")], [ROOT, file("d/e/y")]],
            [b".wh..wh..opq", b".wh.d", b"d/e/x"],
            id="with whiteouts that stand on no disk",
        ),
        pytest.param(
            [[ROOT, file("d/x")], [ROOT, opaque("")], [ROOT, file("d")]],
            [b".wh..wh..opq"],
            id="below a file that hides the rest",
        ),
    ],
)
def test_a_cover_does_what_overlayfs_leaves_undone_for_an_opaque_root(
    layers: Layers, whiteouts: Sequence[bytes]
) -> None:
    assert plan(layers).whiteouts == tuple(whiteouts)


@patiently
@given(stack=stacks())
def test_a_cover_brings_nothing_back(stack: Stack) -> None:
    visible = model.apply(stack.layers)
    for made in plan(stack.layers).directories:
        assert visible[made.path].is_directory


@patiently
@given(stack=stacks())
def test_directories_of_a_cover_take_the_attributes_that_the_stack_has(stack: Stack) -> None:
    visible = model.apply(stack.layers)
    trees = [model.changeset(layer).tree for layer in stack.layers]
    for made in plan(stack.layers).directories:
        assert trees[made.layer][made.path].fact == visible[made.path].fact


@patiently
@given(stack=stacks())
def test_everything_in_a_cover_stands_in_a_directory_that_comes_before_it(stack: Stack) -> None:
    cover = plan(stack.layers)
    made = [found.path for found in cover.directories]
    assert made[0] == b""
    assert len(set(made)) == len(made)
    for number, path in enumerate(made[1:], start=1):
        assert split(path)[0] in made[:number]
    assert all(split(path)[0] in made for path in cover.whiteouts)


def test_a_cover_asks_about_the_way_to_markers_and_implied_directories_only() -> None:
    base = [ROOT, *(directory(f"d{number}") for number in range(100)), directory("d1/e"), file("d1/e/f")]
    layers = [base, [whiteout("d1/e/f")], [ROOT], [file("d2/x")]]
    trees = [model.changeset(layer).tree for layer in layers]
    asked = []

    def kind(number: int, path: bytes) -> Kind | None:
        asked.append((number, path))
        return Kind.DIRECTORY if path in trees[number] else None

    plan_cover([tables_of(layer) for layer in layers], kind, no_names)
    assert {path for _, path in asked} <= {b"d1", b"d1/e", b"d2"}
    assert len(asked) <= len(layers) * 3


def test_a_marker_may_lie_deep() -> None:
    deep = b"/".join([b"d"] * 1200)
    cover = plan([[ROOT], [whiteout(deep)]])
    assert cover.whiteouts == (deep[:-1] + b".wh.d",)
    assert len(cover.directories) == 1200


@patiently
@given(stack=stacks())
def test_a_repeated_layer_counts_where_it_lies_on_top(stack: Stack) -> None:
    last = [layer for number, layer in enumerate(stack.layers) if layer not in stack.layers[number + 1 :]]
    twice, once = plan(stack.layers), plan(last)
    assert set(once.whiteouts) <= set(twice.whiteouts)  # more only below an opaque root, over nothing
    assert model.snapshot(model.apply(stack.layers)) == model.snapshot(model.apply(last))
    assert {made.path for made in once.directories} <= {made.path for made in twice.directories}


def test_a_record_with_a_marker_that_hides_nothing_is_refused() -> None:
    layer = msgspec.structs.replace(tables_of([whiteout("a")]), whiteouts=b"d/.wh.\0")
    with pytest.raises(InvalidWhiteout):
        plan_cover([layer], lambda *_: None, no_names)


@pytest.mark.parametrize(
    ("layers", "directories", "copies"),
    [
        pytest.param([], [], [], id="no layers"),
        pytest.param([[ROOT, file("a")], [whiteout("a")]], [b""], [], id="a marker of what lies below"),
        pytest.param([[ROOT], [file("a"), whiteout("a")]], [b""], [(b"a", 1)], id="a file beside its marker"),
        pytest.param(
            [[ROOT], [directory("d"), whiteout("d"), file("d/x"), directory("d/e"), file("d/e/y")]],
            [b"", b"d", b"d/e"],
            [(b"d/e/y", 1), (b"d/x", 1)],
            id="a directory beside its marker, with all below it",
        ),
        pytest.param(
            [[ROOT], [file("a"), whiteout("a")], [file("a")]], [b""], [], id="a layer above has the name"
        ),
        pytest.param(
            [[ROOT], [file("a"), whiteout("a")], [whiteout("a")]],
            [b""],
            [],
            id="a layer above hides the name",
        ),
    ],
)
def test_a_cover_for_fuse_overlayfs_copies_what_a_marker_of_its_own_layer_hides(
    layers: Layers, directories: list[bytes], copies: list[tuple[bytes, int]]
) -> None:
    cover = plan(layers, plan_fuse_cover)

    assert [each.path for each in cover.directories] == directories
    assert list(cover.copies) == copies
    assert cover.whiteouts == ()
