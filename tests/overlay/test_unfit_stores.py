"""A store on fuse-overlayfs, the root of rootless containers, which takes names with ``.wh.`` for its own.

All that is read of an image is what a store on a tmpfs has.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from layerfs.store import ImageStorage
from tests.overlay.scene import ROOT, command
from tests.overlay.test_fuse_overlayfs import STACKS
from tests.support import canary, daemon, images, mounts
from tests.support.images import Entry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse, pytest.mark.allow_warnings]

ODD: dict[str, list[tuple[Entry, ...]]] = {
    "markers of every type": [
        (ROOT, images.directory("d"), images.file("d/x"), images.file("y"), images.file("z", b"z")),
        (
            images.file("d/.wh.x", b"said with bytes", mode=0o640, uid=3, mtime=7),
            images.symlink(".wh.y", "z"), images.hardlink(".wh.z", "d/.wh.x"), images.fifo(".wh.p"),
            images.directory(".wh..wh.plnk", mode=0o700, uid=4), images.file(".wh..wh.plnk/1.2", b"aufs"),
            images.file(".wh..wh.aufs"), images.file(".wh." + "n" * 244),
        ),
    ],
    "names that markers are written as": [
        (ROOT, images.file(".%.a", b"a"), images.file(".%%.a", b"b"), images.directory(".%.d"),
         images.file(".%.d/.%.e", b"e"), images.file("implied/.%.i/f", uid=9)),
        (images.whiteout(".%.a"), images.whiteout(".%.d/.%.e"), images.file(".%.d/new", uid=70_000)),
    ],
    "markers that are replaced": [
        (ROOT, images.directory("d"), images.file("d/x", b"old"), images.file("e")),
        (images.directory("d"), images.whiteout("d/x"), images.file("d", b"now a file"),
         images.whiteout("e"), images.whiteout("e"), images.file("e", b"beside")),
    ],
}  # fmt: skip
ALL = STACKS | ODD


@dataclass(frozen=True)
class Pair:
    """Two stores with the same images, and a mount of each."""

    references: dict[str, str]
    store: Path
    unfit: daemon.Daemon
    right: daemon.Daemon


@contextlib.contextmanager
def fuse_overlayfs(base: Path) -> Iterator[Path]:
    """Mount a fuse-overlayfs to write to; again with what it had, if *base* is used again."""
    for name in ("lower", "upper", "work"):
        (base / name).mkdir(parents=True, exist_ok=True)
    parts = f"upperdir={base / 'upper'}", f"workdir={base / 'work'}"
    with mounts.fuse_overlay(f"lowerdir={base / 'lower'}", base / "merged", *parts) as merged:
        yield merged


def fill(store: Path, sources: Path, *names: str) -> dict[str, str]:
    """Import all images, or those of *names*; return their references by name."""
    found = {}
    for number, name in enumerate(ALL):
        if names and name not in names:
            continue
        reference = f"registry.test/unfit/{number}:1"
        command("import", "--store", store, f"oci:{sources / str(number)}", reference)
        found[name] = reference
    return found


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sources")
    for number, stack in enumerate(ALL.values()):
        images.write_layout(made / str(number), images.image(*(images.layer(*one) for one in stack)))
    return made


@pytest.fixture(scope="module")
def pair(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    base = tmp_path_factory.mktemp("pair")
    with fuse_overlayfs(base / "fuse") as merged, mounts.tmpfs(base / "tmpfs") as tmpfs:
        references = fill(merged / "s", sources)
        fill(tmpfs / "s", sources)
        with (
            daemon.running(merged / "s", base / "a", "--offline") as unfit,
            daemon.running(tmpfs / "s", base / "b", "--offline") as right,
        ):
            yield Pair(references, merged / "s", unfit, right)


def look(mounted: daemon.Daemon, reference: str) -> dict[bytes, canary.Fact]:
    """Describe all that the mount shows of the layers and the root of an image."""
    place = mounted.images / reference
    shown: dict[bytes, canary.Fact] = {}
    for path in [
        place / "rootfs",
        *sorted((place / "layers").glob("*/diff")),
        *(place / "layers").glob("*/lower"),
    ]:
        os.listdir(path)
        below = os.fsencode(path.relative_to(place))
        shown |= {below + b":" + name: fact for name, fact in canary.snapshot(os.path.realpath(path)).items()}
    return shown


@pytest.mark.parametrize("name", ALL)
def test_the_mount_shows_the_same(pair: Pair, name: str) -> None:
    reference = pair.references[name]

    expected = look(pair.right, reference)

    assert (
        any(b"/diff:" in path and b".wh." in path for path in expected) or name == "parents without entries"
    )
    canary.assert_same(expected, look(pair.unfit, reference))


@pytest.mark.parametrize("name", ALL)
def test_export_and_tree_say_the_same(pair: Pair, name: str, tmp_path: Path) -> None:
    said = []
    for mounted in (pair.unfit, pair.right):
        where = "--store", mounted.store, "--offline", pair.references[name]
        command("export", "-o", tmp_path / "tar", *where)
        said.append((command("tree", "--json", *where).stdout, (tmp_path / "tar").read_bytes()))
    assert said[0] == said[1]


def test_verify_finds_it_right_and_damage_by_its_name(pair: Pair) -> None:
    assert ", 0 wrong" in command("verify", "--store", pair.store, "--all").stdout
    reference = pair.references["markers of every type"]
    with ImageStorage(pair.store) as storage:
        marked = {path: path.read_bytes() for path in pair.store.glob("extracted/*/d/.%.x")}
        assert not storage.capabilities.marker_names
    for path in marked:  # one is of that image
        path.write_bytes(b"said otherwise.")
    done = command("verify", "--store", pair.store, reference, check=False)
    for path, content in marked.items():
        path.write_bytes(content)
    assert done.returncode
    assert "d/.%.x: other bytes than in the archive (here .%. stands for .wh.)" in done.stdout + done.stderr


def test_df_counts_it_and_no_leftover_stays(pair: Pair) -> None:
    found = json.loads(command("df", "--store", pair.store, "--json").stdout)
    assert json.dumps(found).count('"leftovers"')
    assert [
        path for path in pair.store.glob("extracted/*") if not re.search(r"sha256-\w+(\.json)?$", path.name)
    ] == []


def test_lowerdirs_are_refused_with_a_way_out(pair: Pair) -> None:
    reference = pair.references["an opaque root"]
    for merger in ([], ["--for", "fuse-overlayfs"]):
        done = command("lowerdir", "--store", pair.store, "--offline", *merger, reference, check=False)
        assert "this filesystem holds no lowerdirs" in done.stderr
        assert "layerfs mount" in done.stderr


def test_an_image_goes_and_its_room_with_it(sources: Path, tmp_path: Path) -> None:
    """Also after the container was started again: what was made before is known by then."""
    with fuse_overlayfs(tmp_path) as merged:
        references = fill(merged / "s", sources, "an opaque root", "markers of every type")
    with fuse_overlayfs(tmp_path) as merged:
        store = merged / "s"
        with ImageStorage(store) as storage:
            assert all(
                storage.open_layer(path.name.replace("-", ":")) for path in store.glob("extracted/*[0-9a-f]")
            )
        for reference in references.values():
            command("rm", "--store", store, reference)
        assert [
            path.name for name in ("extracted", "covers", "layers") for path in (store / name).iterdir()
        ] == []


def test_trees_that_came_from_elsewhere_are_used_unless_their_markers_are_hidden(
    sources: Path, tmp_path: Path
) -> None:
    """A store in a layer of the container, made where every name was taken."""
    reference = "registry.test/unfit/0:1"
    command("import", "--store", tmp_path / "lower/s", f"oci:{sources / '0'}", reference)
    with ImageStorage(tmp_path / "lower/s") as storage:
        digests = [path.stem.replace("-", ":") for path in (tmp_path / "lower/s/extracted").glob("*.json")]
        made = [storage.open_layer(digest) for digest in digests]
    with fuse_overlayfs(tmp_path) as merged, ImageStorage(merged / "s") as storage:
        assert not storage.capabilities.marker_names
        found = [storage.open_layer(digest) is not None for digest in digests]
    has_markers = [bool(layer and layer.record.layer.whiteouts) for layer in made]
    assert sorted(has_markers) == [False, False, True]
    assert found == [not marked for marked in has_markers]


def test_names_that_it_has_no_room_for_are_its_fault(tmp_path: Path) -> None:
    source = images.write_layout(tmp_path / "lay", images.image(images.layer(ROOT, images.file("n" * 255))))
    with fuse_overlayfs(tmp_path) as merged:
        done = command("import", "--store", merged / "s", f"oci:{source}", "x:1", check=False)
    assert done.returncode == 1
    assert "a name longer than the filesystem of the store takes; use another --store" in done.stderr
