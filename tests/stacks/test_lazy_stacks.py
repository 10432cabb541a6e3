"""Kernel overlayfs on skeletons shows what it shows on whole layers, once their files are objects.

Random stacks of which some layers are lazy and some are whole; entry by entry, content and link counts
included. That the whole ones show the specification is the business of test_stacks.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerfs.host.mountpoint import Mountpoint
from layerfs.host.overlay import Overlay, mount_overlay
from layerfs.store import ImageStorage, LayerDir
from layerfs.store.covering import make_cover
from tests.support import canary, mounts
from tests.support.images import tar
from tests.support.stacks import Stack, patiently, stacks
from tests.support.tocs import LazyLayer, estargz, tellable
from tests.view.lazy_scene import decoded

pytestmark = pytest.mark.needs_root

_RANDOM = settings(patiently, max_examples=25, database=None)
Choice = st.lists(st.booleans(), min_size=12, max_size=12)
"""Which layers of a stack are lazy."""


class Workshop:
    """One store for all stacks, and a place to mount them."""

    def __init__(self, directory: Path) -> None:
        self.storage = ImageStorage(directory / "store")
        self._directory = directory
        self._count = 0

    def whole(self, layer: LazyLayer) -> LayerDir:
        """Have a layer extracted."""
        storage = self.storage
        if storage.open_layer(layer.digest) is None:
            with storage.stage_layer_download(layer.digest, len(layer.blob)) as staged:
                staged.write(layer.blob[staged.offset :])
                staged.commit()
            storage.extract_layer(layer.digest, storage.layer_tarball_path(layer.digest))
        found = storage.open_layer(layer.digest)
        assert found is not None
        return found

    def skeleton(self, layer: LazyLayer) -> LayerDir:
        """Have the skeleton of a layer, and all its files as objects."""
        lazy, toc = self.storage.lazy, layer.place.digest
        if lazy.open_skeleton(toc) is None:
            with lazy.stage_toc(toc) as staged:
                staged.write(layer.toc)
                lazy.make_skeleton(staged, layer.blob_place)
        for id_, content in lazy.contents(toc):
            if lazy.objects.find(id_) is None:
                with lazy.objects.stage(content) as fresh:
                    for piece in content.pieces:
                        fresh.write(piece, decoded(layer, piece))
                    fresh.commit()
        found = lazy.open_skeleton(toc)
        assert found is not None
        return found

    @contextmanager
    def merged(self, trees: Sequence[LayerDir]) -> Iterator[Path]:
        """Mount a stack, base first, with a cover of its own."""
        self._count += 1
        place = self._directory / str(self._count)
        cover, target = place / "cover", place / "merged"
        for directory in (cover, target):
            directory.mkdir(parents=True)
        paths = [tree.path for tree in trees]
        make_cover(cover, paths, 0, form=self.storage.capabilities, merger="")
        lowers = [os.fsencode(path) for path in (cover, *dict.fromkeys(reversed(paths)))]
        data = [os.fsencode(self.storage.lazy.objects.directory)]
        try:
            mount_overlay(Overlay(lowers, data=data), Mountpoint.open(target))
            yield target
        finally:
            mounts.clear(target)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    made = Workshop(tmp_path_factory.mktemp("lazy"))
    yield made
    made.storage.close()


def check(stack: Stack, lazy: Sequence[bool], workshop: Workshop) -> None:
    layers = [estargz(tar(tellable(entries)), chunk=3) for entries in stack.layers]
    chosen = {layer.digest: is_lazy for layer, is_lazy in zip(layers, lazy, strict=False)}
    make = {True: workshop.skeleton, False: workshop.whole}
    mixed = [make[chosen.get(layer.digest, True)](layer) for layer in layers]
    with workshop.merged([workshop.whole(layer) for layer in layers]) as merged:
        expected, counts = canary.snapshot(merged), links(merged)
    with workshop.merged(mixed) as merged:
        canary.assert_same(expected, canary.snapshot(merged))
        assert links(merged) == counts


def links(top: Path) -> dict[str, int]:
    """Return the link counts of all files."""
    return {str(path.relative_to(top)): path.lstat().st_nlink for path in top.rglob("*") if path.is_file()}


@_RANDOM
@given(stack=stacks(), lazy=Choice)
def test_skeletons_show_what_whole_layers_do(stack: Stack, lazy: list[bool], workshop: Workshop) -> None:
    check(stack, lazy, workshop)


@pytest.mark.long
@pytest.mark.parametrize("batch", range(20))
@_RANDOM
@given(stack=stacks(), lazy=Choice)
def test_skeletons_of_many_stacks(stack: Stack, lazy: list[bool], workshop: Workshop, batch: int) -> None:
    check(stack, lazy, workshop)
