"""What the layers of an image may cost together, and how often the store is asked for it."""

from pathlib import Path
from typing import Any

import pytest
import trio

from layerfs.errors import BudgetExceeded
from layerfs.fetch.sums import ImageSums
from layerfs.layer.budgets import Budgets
from layerfs.oci import Image, ImageConfig, Manifest, parse_manifest
from layerfs.store import ImageStorage
from tests.support import images
from tests.support.images import BuiltImage, BuiltLayer

LAYERS = [images.layer(images.file(f"f{number}", bytes(4096))) for number in range(20)]


def parsed(built: BuiltImage) -> Image:
    manifest = parse_manifest(built.manifest, built.digest)
    assert isinstance(manifest, Manifest)
    return Image.of(manifest, ImageConfig.parse(built.config))


class Counting:
    """The store, and how often it was asked for a layer."""

    def __init__(self, store: Path) -> None:
        self.storage = ImageStorage(store)
        self.looks = 0

    def open_layer(self, digest: Any) -> Any:
        self.looks += 1
        return self.storage.open_layer(digest)

    def extract(self, layer: BuiltLayer) -> None:
        with self.storage.stage_layer_download(layer.digest, layer.size) as download:
            download.write(layer.blob)
            download.commit()
        self.storage.extract_layer(layer.digest, self.storage.layer_tarball_path(layer.digest))


@pytest.fixture
def counting(store: Path) -> Any:
    made = Counting(store)
    yield made
    made.storage.close()


async def test_sums_cost_a_look_a_layer_however_many_needs_there_are(counting: Counting) -> None:
    sums = ImageSums(counting, Budgets())  # type: ignore[arg-type]
    image = parsed(images.image(*LAYERS))
    held = []

    async def need(number: int) -> None:
        held.append(await sums.of(image))
        await sums.arrived(image.layers[number].digest)

    async with trio.open_nursery() as nursery:
        for number in range(len(LAYERS)):
            nursery.start_soon(need, number)
    assert counting.looks <= 2 * len(LAYERS)
    assert len(set(map(id, held))) == 1


async def test_layers_that_others_extract_count_at_once(counting: Counting) -> None:
    """An image whose layers become large on another image's behalf is judged by what is there."""
    sums = ImageSums(counting, Budgets(max_image_entries=2))  # type: ignore[arg-type]
    mine, other = parsed(images.image(*LAYERS[:3])), parsed(images.image(*LAYERS[1:4]))
    my_sum, other_sum = await sums.of(mine), await sums.of(other)
    for layer in LAYERS[1:3]:
        await trio.to_thread.run_sync(counting.extract, layer)
        await sums.arrived(layer.digest)
        await sums.arrived(layer.digest)
        my_sum.require()
    await trio.to_thread.run_sync(counting.extract, LAYERS[0])
    await sums.arrived(LAYERS[0].digest)
    with pytest.raises(BudgetExceeded, match="3 entries in all layers so far"):
        my_sum.require()
    other_sum.require()
    with pytest.raises(BudgetExceeded):
        await sums.of(mine)


async def test_sums_of_images_that_nobody_needs_are_not_kept(counting: Counting) -> None:
    sums = ImageSums(counting, Budgets())  # type: ignore[arg-type]
    await sums.of(parsed(images.image(LAYERS[0])))
    assert not sums._of_images
