"""How often programs are told of work that never stands still: at most ten times a second of each layer."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from layerfs.api.watching import Watcher, telling
from layerfs.fetch.progress import Journal, Progress
from layerfs.oci import Image as Documents
from layerfs.oci import ImageConfig, ImageReference, Manifest
from layerfs.oci.image import ImageLayer
from layerfs.oci.manifest import parse_manifest
from tests.api.conftest import BASE, TOP
from tests.support import images

if TYPE_CHECKING:
    from layerfs.status import Underway

REPOSITORY = ImageReference.parse("registry.example/a:1").repository
BUILT = images.image(BASE, TOP)
SECONDS = 5
TICKS = 100
"""Changes of each layer in a second."""


def _layers() -> Sequence[ImageLayer]:
    manifest = parse_manifest(BUILT.manifest, BUILT.digest)
    assert isinstance(manifest, Manifest)
    return Documents.of(manifest, ImageConfig.parse(BUILT.config)).layers


LAYERS = _layers()


async def _work(journal: Journal) -> None:
    journal.active = [Progress(REPOSITORY, layer.digest, SECONDS * TICKS) for layer in LAYERS]
    for number in range(1, SECONDS * TICKS + 1):
        await trio.sleep(1 / TICKS)
        for progress in journal.active:
            progress.advance(number)


def _most_in_a_second(times: list[float]) -> int:
    return max(bisect_left(times, begin + 1) - number for number, begin in enumerate(times))


async def test_progress_is_told_ten_times_a_second_of_each_layer_at_most(autojump_clock: object) -> None:
    told: list[tuple[float, Underway]] = []
    journal = Journal()

    async with telling(journal, REPOSITORY, LAYERS, lambda found: told.append((trio.current_time(), found))):
        await _work(journal)

    for layer in LAYERS:
        times = [when for when, found in told if found.digest == str(layer.digest)]
        assert 5 <= _most_in_a_second(times) <= 10
        assert len(times) >= 5 * SECONDS
    assert [found.phase for _, found in told[-2:]] == ["done", "done"]


async def test_events_come_ten_times_a_second_at_most(autojump_clock: object) -> None:
    times: list[float] = []
    journal = Journal()
    watcher = Watcher(lambda: journal.statistics(waiting=1))

    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            while True:
                await watcher.next()
                times.append(trio.current_time())

        nursery.start_soon(watch)
        await _work(journal)
        nursery.cancel_scope.cancel()

    assert 5 <= _most_in_a_second(times) <= 10
    assert len(times) >= 5 * SECONDS
