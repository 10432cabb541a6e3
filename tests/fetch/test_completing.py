"""When lazy layers become whole behind those who look: what is read through does not wait for a pause."""

import trio

from layerfs.errors import Unreachable
from layerfs.fetch.completing import Completer
from layerfs.needs import FileNeed, LayersNeed, TocNeed
from layerfs.oci import Digest
from tests.fetch.test_lazy import LAYER, lazy_image
from tests.fetch.test_sums import parsed
from tests.support import images
from tests.support.faulty_registry import FaultyRegistry
from tests.support.tocs import estargz

OTHERS = [estargz(images.tar([images.file(f"file{number}", b"x")])) for number in range(2)]


async def test_what_fails_is_tried_again_when_somebody_looks_again(
    autojump_clock: object, faulty: FaultyRegistry
) -> None:
    image, repository = parsed(lazy_image(LAYER, *OTHERS)), faulty.repository("a/b")
    begun: list[tuple[int, ...]] = []

    async def complete(need: LayersNeed) -> None:
        begun.append(need.numbers)
        raise Unreachable("no registry")

    completer = Completer(complete, lambda: 1, "idle")
    file = FileNeed(repository, image, 1, Digest.of(b"toc"), "id")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(completer.run)
        for _ in range(2):
            completer.looked_at(file, at_once=True)
            await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert begun == [(1,), (1,)]


async def test_what_is_read_through_comes_first_and_then_the_rest_of_its_image(
    autojump_clock: object, faulty: FaultyRegistry
) -> None:
    image, repository = parsed(lazy_image(LAYER, *OTHERS)), faulty.repository("a/b")
    begun: list[tuple[tuple[int, ...], float]] = []

    async def complete(need: LayersNeed) -> None:
        begun.append((need.numbers, trio.current_time() - started))

    completer = Completer(complete, lambda: 1, "idle")  # somebody waits all the time
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(completer.run)
        completer.looked_at(TocNeed(repository, image, (0, 1, 2)))
        await trio.sleep(10)
        assert begun == []
        file = FileNeed(repository, image, 1, Digest.of(b"toc"), "id")
        completer.looked_at(file, at_once=True)
        completer.looked_at(file, at_once=True)
        await trio.sleep(1)
        assert begun == [((1,), 10), ((0, 2), 10)]
        nursery.cancel_scope.cancel()
