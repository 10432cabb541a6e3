"""Random stacks: ``rootfs/`` is what specification and kernel say, ``lower/`` is the native form."""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from layerfs.layer.whiteout import is_marker
from layerfs.view.directory import Listing, LongListing
from layerfs.view.merged import MergedDirectory
from layerfs.view.nodes import Node
from tests.support import canary, model
from tests.support.images import directory, file, hardlink, image, opaque, symlink, whiteout
from tests.support.mounts import overlay
from tests.support.stacks import Stack, stacks
from tests.view.scene import AMD64, MadeLayer, Scene, made, names, show, stack_id

pytestmark = pytest.mark.needs_root

SLOW = settings(
    max_examples=int(os.environ.get("LAYERFS_STACKS", "25")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One store for all examples of a property: what is equal is extracted once.

    Each example brings a new image, which the tree must look for however slow its last look was.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("layerfs.catalog.known._RESCAN_COST", 0)
        with closing(Scene(tmp_path_factory.mktemp("rootfs") / "store")) as scene:
            yield scene


def layers_of(stack: Stack) -> list[MadeLayer]:
    distinct: dict[int, MadeLayer] = {}
    return [distinct.setdefault(id(entries), made(*entries)) for entries in stack.layers]


def fill(scene: Scene, *layers: MadeLayer) -> Scene:
    scene.knows(image(*(one.built for one in layers), platform=AMD64))
    scene.has(*{one.digest: one for one in layers}.values())
    return scene


def native_lowerdirs(scene: Scene, *layers: MadeLayer) -> list[Path]:
    built = image(*(one.built for one in layers), platform=AMD64)
    scene.has_cover(*layers)
    content = scene.image(built, "lowerdirs").open()
    found = []
    for line in content.data.splitlines():  # type: ignore[union-attr]  # texts are in memory
        target = scene.node("lower", os.path.basename(line)).readlink()
        assert isinstance(target, bytes), target
        found.append(Path(os.fsdecode(target)))
    return found


@SLOW
@given(stack=stacks())
def test_rootfs_is_what_the_specification_says(stack: Stack, bench: Scene) -> None:
    layers = layers_of(stack)
    scene = fill(bench, *layers)
    canary.assert_same(
        model.snapshot(model.apply(stack.layers)), show(scene.node("rootfs", stack_id(*layers)))
    )


@SLOW
@given(stack=stacks(max_layers=4))
def test_rootfs_is_what_the_kernel_shows_of_the_lowerdirs(stack: Stack, bench: Scene) -> None:
    layers = layers_of(stack)
    scene = fill(bench, *layers)
    with overlay(
        native_lowerdirs(scene, *layers), scene.storage.images_dir.parent, "ro", upper=False
    ) as merged:
        native = canary.snapshot(merged)
    canary.assert_same(native, show(scene.node("rootfs", stack_id(*layers))))


@SLOW
@given(stack=stacks(max_layers=2))
def test_lower_is_the_native_form_without_markers(stack: Stack, bench: Scene) -> None:
    for one in layers_of(stack):
        scene = fill(bench, one)
        native = scene.storage.layer_extracted_path(one.digest)
        compare_with_native(scene.layer(one, "lower"), os.fsencode(native))


def compare_with_native(node: Node, path: bytes) -> None:
    there = {os.fsencode(name) for name in os.listdir(path)}
    assert names(node.entries()) == sorted(name for name in there if not is_marker(name))
    is_opaque = b"trusted.overlay.opaque" in {os.fsencode(name) for name in os.listxattr(path)}
    assert (node.xattrs().get(b"trusted.overlay.opaque") == b"y") is is_opaque
    assert (node.xattrs().get(b"user.overlay.opaque") == b"y") is is_opaque
    for name in there:
        child = node.lookup(name)
        if is_marker(name):
            assert child is None
            continue
        assert isinstance(child, Node)
        found = os.lstat(os.path.join(path, name))
        assert stat.S_IFMT(child.attributes().mode) == stat.S_IFMT(found.st_mode)
        assert child.attributes().rdev == found.st_rdev
        if stat.S_ISDIR(found.st_mode):
            compare_with_native(child, os.path.join(path, name))


@SLOW
@given(stack=stacks(max_layers=2))
def test_diff_holds_the_layer_and_its_markers(stack: Stack, bench: Scene) -> None:
    for one in layers_of(stack):
        scene = fill(bench, one)
        seen = show(scene.layer(one, "diff"))
        plain = {path: fact for path, fact in seen.items() if not is_marker(os.path.basename(path))}
        canary.assert_same(model.snapshot(model.changeset(one.entries).tree), plain)
        markers = {
            os.fsencode(entry.name)
            for entry in one.entries
            if is_marker(os.path.basename(os.fsencode(entry.name)))
        }
        assert seen.keys() - plain.keys() == markers


@pytest.fixture
def full(scene: Scene) -> Scene:
    return fill(scene, BASE, TOP)


BASE = made(
    directory("etc", mtime=5),
    file("etc/passwd", b"root"),
    file("etc/shadow", b"x", 0o600),
    hardlink("etc/gshadow", "etc/shadow"),
    directory("tmp", 0o1777),
    symlink("etc/link", "/nowhere"),
)
TOP = made(whiteout("etc/passwd"), file("tmp/new", b"new"), directory("var"), opaque("var"))


def test_files_are_one_node_wherever_their_layer_is_shown(full: Scene) -> None:
    root = full.node("rootfs", stack_id(BASE, TOP))
    diff, lower = full.layer(BASE, "diff"), full.layer(BASE, "lower")
    for path in ("etc/shadow", "etc/link"):
        parent, name = path.encode().split(b"/")
        found = {below(top, parent, name).ino for top in (root, diff, lower)}
        assert len(found) == 1
    assert below(diff, b"etc", b"shadow") is below(diff, b"etc", b"gshadow")
    assert below(diff, b"etc", b"shadow").attributes().nlink == 2


def test_directories_have_a_number_for_each_place(full: Scene) -> None:
    tops = [full.node("rootfs", stack_id(BASE, TOP)), full.layer(BASE, "diff"), full.layer(BASE, "lower")]
    numbers = {top.ino for top in tops} | {below(top, b"etc").ino for top in tops}
    assert len(numbers) == 6


def test_numbers_are_the_same_after_a_remount(full: Scene) -> None:
    def numbers() -> list[int]:
        tops = [
            ("rootfs", stack_id(BASE, TOP)),
            ("layers", BASE.digest.name, "diff"),
            ("layers", TOP.digest.name),
        ]
        return [ino for path in tops for ino in walk_numbers(full.node(*path))]

    before = numbers()
    full.mount()
    assert numbers() == before


def test_a_merged_directory_has_one_link_and_a_plain_one_as_many_as_on_disk(full: Scene) -> None:
    root = full.node("rootfs", stack_id(BASE, TOP))
    assert root.attributes().nlink == 1
    assert below(root, b"etc").attributes().nlink == 1
    assert below(root, b"var").attributes().nlink == 2


def test_a_lookup_and_a_listing_give_the_same_nodes(full: Scene) -> None:
    root = full.node("rootfs", stack_id(BASE, TOP))
    looked_up = {name: below(root, name) for name in (b"etc", b"tmp", b"var")}
    listed = root.entries()
    assert not isinstance(listed, tuple | type(None))
    assert dict(listed) == looked_up  # type: ignore[arg-type]  # a listing, the layers are there
    assert below(root, b"etc").lookup(b"passwd") is None
    etc = below(root, b"etc")
    etc.entries()
    assert etc.lookup(b"passwd") is None
    assert below(etc, b"link").readlink() == b"/nowhere"
    etc.forgotten()
    assert etc.lookup(b"passwd") is None


def test_a_stack_without_layers_is_an_empty_directory(scene: Scene) -> None:
    fill(scene)
    root = scene.node("rootfs", stack_id())
    assert root.entries() == []
    assert root.lookup(b"x") is None
    assert root.attributes().mode == stat.S_IFDIR | 0o755


def test_only_complete_stacks_are_listed(full: Scene) -> None:
    full.knows(image(made(file("other")).built, platform=AMD64), "other")
    assert names(full.node("rootfs").entries()) == [stack_id(BASE, TOP).encode()]
    full.storage.discard_layer(TOP.digest)
    assert names(full.node("rootfs").entries()) == []


def below(node: Node, *path: bytes) -> Node:
    for name in path:
        found = node.lookup(name)
        assert isinstance(found, Node)
        node = found
    return node


def walk_numbers(node: Node) -> Iterator[int]:
    yield node.ino
    if stat.S_ISDIR(node.attributes().mode):
        listed = node.entries()
        assert isinstance(listed, Sequence | Listing)
        for _, child in sorted(listed):
            yield from walk_numbers(child)


def crowds() -> dict[str, tuple[MadeLayer, ...]]:
    """Make large directories that hide most of what their layers list."""
    files = made(directory("d"), *(file(f"d/f{number}", b"") for number in range(60)))
    hidden = made(directory("d"), *(whiteout(f"d/f{number}") for number in range(58)), file("d/own", b""))
    again = made(directory("d"), *(file(f"d/f{number}", b"x") for number in range(60)))
    return {"whiteouts": (files, hidden), "the same names": (files, again), "one layer": (files,)}


@pytest.mark.parametrize("kind", ["whiteouts", "the same names", "one layer"])
def test_big_directory_holds_up_others(scene: Scene, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """OPENDIR judges no name of a large directory, and READDIR few at a time, however many are hidden."""
    layers = crowds()[kind]
    scene = fill(scene, *layers)
    for module in ("directory", "merged"):
        monkeypatch.setattr(f"layerfs.view.{module}.MANY", 20)
    monkeypatch.setattr("layerfs.view.directory.LISTED_AT_ONCE", 4)
    judged = 0
    find = MergedDirectory.find

    def counted(self: MergedDirectory, name: bytes) -> Node | None:
        nonlocal judged
        judged += 1
        return find(self, name)

    node = scene.node("rootfs", stack_id(*layers), "d")
    assert isinstance(node, MergedDirectory)
    expected = {name for name, _ in LongListing(node)}
    monkeypatch.setattr(MergedDirectory, "find", counted)
    listing = node.entries()
    assert isinstance(listing, LongListing)
    assert judged == 0, "a large directory is gone through by whoever opens it"
    found: list[bytes] = []
    while True:
        judged = 0
        entries = listing.next_entries()
        assert judged <= 8, "one step goes through many names"
        if entries is None:
            break
        found += [name for name, _ in entries]
        listing.advance(len(entries))
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert len(found) == {"whiteouts": 3, "the same names": 60, "one layer": 60}[kind]
    steps = 1
    while not listing.seek(len(found) - 1):
        steps += 1
    assert steps >= 10
    last = listing.next_entries()
    while not last:
        last = listing.next_entries()
    assert [name for name, _ in last] == found[-1:]
