"""Kernel overlayfs on cover and layers shows what the image specification says, for random stacks.

Each stack is extracted by a worker, covered as the store does it, mounted, and compared entry by entry with
the model (`tests.support.model`): type, mode, owner, size, mtime, xattrs, content, link groups and counts.
The model itself is compared with umoci, which unpacks the layers of the same image one over another.
"""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings

from layerfs.extract.client import Extractor
from layerfs.extract.job import ExtractJob
from layerfs.layer.tables import Tables
from layerfs.store.covers import build_cover
from layerfs.store.records import Merger
from tests.extract.extracting import tables_in
from tests.layer.records import tables_of
from tests.support import canary, images, model
from tests.support.images import Entry, directory
from tests.support.mounts import fuse_overlay, overlay
from tests.support.stacks import Stack, patiently, stacks

pytestmark = pytest.mark.needs_root

_RANDOM = settings(patiently, max_examples=50, database=None)


class Workshop:
    """Where stacks are extracted and mounted, one after another, by one warm worker."""

    def __init__(self, directory: Path) -> None:
        self.extractor = Extractor()
        self._directory = directory / "stack"

    def clean_directory(self) -> Path:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir()
        return self._directory

    def extract(self, entries: Sequence[Entry], target: Path) -> Tables:
        layer = images.layer(*entries)
        blob = target.with_suffix(".blob")
        blob.write_bytes(layer.blob)
        target.mkdir()
        self.extractor.start(
            ExtractJob(blob=str(blob), target=str(target), digest=str(layer.digest), size=layer.size)
        )
        listed: list[bytes] = []
        return tables_in(self.extractor.result(listed.append), listed)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    made = Workshop(tmp_path_factory.mktemp("stacks"))
    yield made
    made.extractor.close()


@contextmanager
def covered(stack: Stack, workshop: Workshop, merger: Merger = "") -> Iterator[list[Path]]:
    """Extract *stack* and cover it for *merger*; yield the lower directories, topmost first."""
    directory = workshop.clean_directory()
    distinct = list(dict.fromkeys(map(id, stack.layers)))
    numbers = [distinct.index(id(layer)) for layer in stack.layers]
    trees = [directory / f"layer{number}" for number in numbers]
    records = {}
    for tree, layer in zip(trees, stack.layers, strict=True):
        if tree not in records:
            records[tree] = workshop.extract(layer, tree)
            assert_marks(tables_of(layer), records[tree])
    cover = directory / "cover"
    cover.mkdir()
    build_cover(cover, [records[tree] for tree in trees], trees, merger=merger)
    yield [cover, *dict.fromkeys(reversed(trees))]


def check_overlay(stack: Stack, workshop: Workshop) -> None:
    expected = model.apply(stack.layers)
    with (
        covered(stack, workshop) as lowers,
        overlay(lowers, lowers[0].parent, "ro", upper=False) as merged,
    ):
        found = canary.snapshot(merged)
        counts = {path: _links(merged, path) for path in found}
    canary.assert_same(model.snapshot(expected), found)
    assert counts == {path: 1 if inode.is_directory else inode.links for path, inode in expected.items()}


def check_fuse_overlayfs(stack: Stack, workshop: Workshop) -> None:
    expected = model.snapshot(model.apply(stack.layers))
    with covered(stack, workshop, "fuse-overlayfs") as lowers:
        option = "lowerdir=" + ":".join(map(str, lowers))
        with fuse_overlay(option, lowers[0].parent / "merged") as merged:
            found = canary.snapshot(merged, one_filesystem=False)
    canary.assert_same(without_links(expected), without_links(found))


def without_links(tree: canary.Snapshot) -> canary.Snapshot:
    """Return *tree* without link groups: what the cover copies for fuse-overlayfs has a link the less."""
    return {path: replace(fact, links=()) for path, fact in tree.items()}


def _links(top: Path, path: bytes) -> int:
    status = os.lstat(os.path.join(os.fsencode(top), path))
    return 1 if stat.S_ISDIR(status.st_mode) else status.st_nlink


def assert_marks(expected: Tables, found: Tables) -> None:
    for name in ("whiteouts", "opaques", "implied"):
        assert getattr(found, name) == getattr(expected, name), name


@_RANDOM
@given(stack=stacks())
def test_overlayfs_on_cover_and_layers_shows_the_specification(stack: Stack, workshop: Workshop) -> None:
    check_overlay(stack, workshop)


@_RANDOM
@given(stack=stacks())
def test_fuse_overlayfs_lowerdir(stack: Stack, workshop: Workshop) -> None:
    """With the cover of its own, fuse-overlayfs shows the specification too."""
    assume(not any(map(leads_to_itself, stack.layers)))
    check_fuse_overlayfs(stack, workshop)


def leads_to_itself(layer: Sequence[Entry]) -> bool:
    """Say whether a layer may have a symlink that is its own target.

    fuse-overlayfs 1.10 looks for markers below it, and shows no directory of a higher layer in its place.
    """
    targets = {entry.target for entry in layer if entry.kind == b"2"}
    return any(os.path.basename(entry.name) in targets for entry in layer if entry.kind in (b"1", b"2"))


@pytest.mark.long
@pytest.mark.parametrize("batch", range(40))
@_RANDOM
@given(stack=stacks())
def test_overlayfs_shows_the_specification_of_many_stacks(
    stack: Stack, workshop: Workshop, batch: int
) -> None:
    check_overlay(stack, workshop)


def for_umoci(layer: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return a layer of which umoci makes what the specification says.

    umoci 0.4.7 refuses a hard link whose target comes later, takes AUFS's names for whiteouts, does not make
    the directory of a marker, and fails on an opaque marker in a directory that is a symlink in lower layers
    and listed behind it. So directories are all listed, and first.
    """
    entries = [entry for entry in layer if os.path.basename(os.fsencode(entry.name)) != b".wh..wh.aufs"]
    tree = model.changeset(layer).tree
    entries += [directory(path or b".") for path, inode in tree.items() if not inode.listed]
    ranks = {b"5": 0, b"1": 2}
    return tuple(
        sorted(entries, key=lambda entry: (ranks.get(entry.kind, 1), entry.kind == b"5" and entry.name))
    )


def check_umoci(stack: Stack, work: Path) -> None:
    layers = [for_umoci(layer) for layer in stack.layers]
    layout = images.write_layout(work / "layout", images.image(*(images.layer(*layer) for layer in layers)))
    rootfs = work / "rootfs"
    command = ["umoci", "raw", "unpack", "--image", f"{layout}:latest", str(rootfs)]
    subprocess.run(command, check=True, capture_output=True)
    expected = model.snapshot(model.apply(layers))
    canary.assert_same(without_directory_times(expected), without_directory_times(canary.snapshot(rootfs)))


def without_directory_times(tree: canary.Snapshot) -> canary.Snapshot:
    """Return *tree* without what umoci leaves to chance where a layer removes an entry."""
    return {path: replace(fact, mtime_ns=0) if fact.kind == "d" else fact for path, fact in tree.items()}


@_RANDOM
@given(stack=stacks())
def test_umoci_agrees_with_the_model(stack: Stack, workshop: Workshop) -> None:
    check_umoci(stack, workshop.clean_directory())
