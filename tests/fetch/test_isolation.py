"""One registry against another: failure, slowness and wrong bytes of one reach no image of another.

The store and the extractors are real; the origin is `tests.support.fake_origin`, with ways for each.
"""

import contextlib
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from layerfs.catalog.documents import ImageDocuments
from layerfs.catalog.known import KnownImages
from layerfs.errors import DigestMismatch, InvalidDocument, LayerfsError, NotFound, Unreachable, WaitRefused
from layerfs.extract.client import ExtractorPool
from layerfs.fetch.fetcher import Fetcher
from layerfs.fetch.lending import LOOK, PACE, Claim, Lending, next_to_get, to_recall
from layerfs.fetch.opening import open_fetcher
from layerfs.fetch.operations import FetchManifest
from layerfs.fetch.progress import Progress
from layerfs.fetch.sharing import LASTS, UNKNOWN, LocatingOrigin, WaitShares
from layerfs.layer.budgets import Budgets
from layerfs.needs import BlobNeed, LayersNeed, Need, UnreadNeed
from layerfs.oci import Digest, Platform, Repository
from layerfs.oci.image import Image
from layerfs.store import ImageStorage
from layerfs.store.documents import DocumentShelf
from tests.support import images
from tests.support.fake_origin import Delivery, FakeOrigin
from tests.support.images import BuiltImage

EVIL = "evil.example"
HONEST = "honest.example"


def built(size: int = 2 << 20) -> BuiltImage:
    return images.image(images.layer(images.file("a", os.urandom(size))))


@pytest.fixture
def shared() -> BuiltImage:
    """An image whose layer the images of both registries have."""
    return built()


@asynccontextmanager
async def fetching(store: Path, origin: FakeOrigin, pool: ExtractorPool) -> AsyncIterator[Fetcher]:
    options = {"platform": Platform("linux", "amd64"), "budgets": Budgets(), "workers": 2}
    async with open_fetcher(ImageStorage(store), origin, pool, **options) as fetcher:  # type: ignore[arg-type]
        yield fetcher


async def have(fetcher: Fetcher, registry: str, image: BuiltImage, path: str = "a/b") -> None:
    repository = Repository(registry, path)
    manifest = await fetcher.image(repository, image.digest)
    config = ImageStorage(fetcher._storage.images_dir).load_config(manifest.config.digest)
    whole = Image.of(manifest, config)
    await fetcher.obtain(LayersNeed(repository, whole, tuple(range(len(whole.layers)))))


def silent(until: int = 0) -> list[Delivery]:
    return [Delivery(until=until, hold=trio.Event())]


@pytest.mark.parametrize("until", [0, 1, 1 << 20, (3 << 20) // 2])
async def test_hung_registry_freezes_others(store: Path, pool: ExtractorPool, until: int) -> None:
    """However much a silent registry has sent before, no extractor is kept waiting for it for long."""
    hung = [built(3 << 20) for _ in range(6)]
    image = built()
    origin = FakeOrigin((*hung, image), of_registries={EVIL: silent(until)})
    async with fetching(store, origin, pool) as fetcher, trio.open_nursery() as nursery:
        for one in hung:
            nursery.start_soon(have, fetcher, EVIL, one)
        await trio.sleep(0.5)
        with trio.fail_after(10):
            await have(fetcher, HONEST, image)
        nursery.cancel_scope.cancel()


async def test_what_was_taken_back_is_extracted_once_it_is_whole(store: Path, pool: ExtractorPool) -> None:
    slow, other = [built(3 << 20) for _ in range(2)], built()
    go_on = trio.Event()
    origin = FakeOrigin(
        (*slow, other), of_registries={EVIL: [Delivery(until=2 << 20, hold=go_on)] * 2 + [Delivery()]}
    )
    async with fetching(store, origin, pool) as fetcher, trio.open_nursery() as nursery:
        for one in slow:
            nursery.start_soon(have, fetcher, EVIL, one)
        await trio.sleep(0.5)
        await have(fetcher, HONEST, other)
        go_on.set()
    for one in slow:
        layer = ImageStorage(store).open_layer(one.layers[0].digest)
        assert layer is not None
        assert (layer.path / "a").stat().st_size == 3 << 20


WAYS: dict[str, Callable[[], list[Delivery]]] = {
    "silent": silent,
    "sends a part": partial(silent, 1 << 20),
    "sends other bytes": lambda: [Delivery(content=os.urandom(1 << 20))],
    "has nothing": lambda: [Delivery(refused=NotFound("gone"))],
    "is away": lambda: [Delivery(refused=Unreachable("away"))],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("blob_alone", [False, True])
async def test_digest_held_hostage(
    store: Path, pool: ExtractorPool, shared: BuiltImage, way: str, blob_alone: bool
) -> None:
    """An image of one registry names a layer of another's, and does not deliver it."""
    origin = FakeOrigin((shared,), of_registries={EVIL: WAYS[way]()})
    descriptor = shared.layers[0].descriptor()

    async def want(fetcher: Fetcher, registry: str) -> None:
        if blob_alone:
            await fetcher.obtain(BlobNeed(Repository(registry, "a/b"), descriptor))
        else:
            await have(fetcher, registry, shared)

    ended: list[LayerfsError | None] = []

    async def hostile(fetcher: Fetcher) -> None:
        try:
            await want(fetcher, EVIL)
            ended.append(None)
        except LayerfsError as exc:
            ended.append(exc)

    async with fetching(store, origin, pool) as fetcher, trio.open_nursery() as nursery:
        nursery.start_soon(hostile, fetcher)
        await trio.sleep(0.2)
        with trio.fail_after(10):
            await want(fetcher, HONEST)
        with trio.fail_after(10):  # whoever waits for the silent one has it now, too
            while not ended:  # noqa: ASYNC110
                await trio.sleep(0.05)
    if way in ("silent", "sends a part"):
        assert ended == [None]
        assert not list((store / "layers").glob("*.downloading")), "what was fetched in vain is left"
    assert ImageStorage(store).open_blob(descriptor.digest) is not None


async def test_digest_held_hostage_by_another_process(
    store: Path, pool: ExtractorPool, shared: BuiltImage
) -> None:
    lock = ImageStorage(store).lock(shared.layers[0].digest, EVIL)
    assert lock.try_acquire()
    try:
        async with fetching(store, FakeOrigin((shared,)), pool) as fetcher:
            with trio.fail_after(10):
                await have(fetcher, HONEST, shared)
    finally:
        lock.release()


async def test_who_waits_for_a_rival_has_what_it_published(
    store: Path, tmp_path: Path, pool: ExtractorPool, shared: BuiltImage
) -> None:
    """Another process publishes while this one waits for a registry that is silent."""
    async with fetching(tmp_path / "other", FakeOrigin((shared,)), pool) as fetcher:
        await have(fetcher, HONEST, shared)
    origin = FakeOrigin((shared,), of_registries={EVIL: silent()})
    async with fetching(store, origin, pool) as fetcher, trio.open_nursery() as nursery:
        nursery.start_soon(have, fetcher, EVIL, shared)
        await trio.sleep(0.3)
        name = shared.layers[0].digest.name
        for published in (f"{name}.json", name):  # moved: a copy of a tree is void
            (tmp_path / "other/extracted" / published).rename(store / "extracted" / published)
        nursery.cancel_scope.deadline = trio.current_time() + 10
    assert not nursery.cancel_scope.cancelled_caught


async def test_another_repository_of_the_registry_lacks_the_blob(
    store: Path, pool: ExtractorPool, shared: BuiltImage
) -> None:
    """On a shared registry a stranger's repository may name any layer; its failure is its own."""
    hold = trio.Event()
    origin = FakeOrigin((shared,), deliveries=[Delivery(until=0, hold=hold, broken=NotFound("not in b"))])
    async with fetching(store, origin, pool) as fetcher, trio.open_nursery() as nursery:
        errors: list[LayerfsError] = []

        async def stranger() -> None:
            with pytest.raises(NotFound) as caught:
                await have(fetcher, HONEST, shared, "stranger/b")
            errors.append(caught.value)

        nursery.start_soon(stranger)
        await trio.sleep(0.2)
        nursery.start_soon(have, fetcher, HONEST, shared)
        await trio.sleep(0.2)
        hold.set()
    assert len(errors) == 1


@pytest.mark.parametrize("blob_alone", [False, True])
@pytest.mark.parametrize("part", ["other bytes", "too many bytes"])
async def test_suspended_download_poison(
    store: Path, pool: ExtractorPool, shared: BuiltImage, blob_alone: bool, part: str
) -> None:
    """Wrong bytes that an earlier attempt left are not blamed on who sends the right ones after them."""
    layer = shared.layers[0]
    size = layer.size // 2 if part == "other bytes" else layer.size
    staged = ImageStorage(store).stage_layer_download(layer.digest, layer.size, HONEST)
    staged.write(os.urandom(size))
    staged.suspend()
    origin = FakeOrigin((shared,))
    async with fetching(store, origin, pool) as fetcher:
        if blob_alone:
            await fetcher.obtain(BlobNeed(Repository(HONEST, "a/b"), layer.descriptor()))
        else:
            await have(fetcher, HONEST, shared)
    assert origin.offsets() == ([size, 0] if part == "other bytes" else [0])


async def test_wrong_bytes_again_are_blamed(store: Path, pool: ExtractorPool, shared: BuiltImage) -> None:
    layer = shared.layers[0]
    staged = ImageStorage(store).stage_layer_download(layer.digest, layer.size, EVIL)
    staged.write(os.urandom(10))
    staged.suspend()
    origin = FakeOrigin((shared,), of_registries={EVIL: [Delivery(content=os.urandom(layer.size))]})
    async with fetching(store, origin, pool) as fetcher:
        with pytest.raises(DigestMismatch):
            await have(fetcher, EVIL, shared)
    assert origin.offsets() == [10, 0]


async def test_a_part_of_one_registry_is_not_anothers(store: Path, shared: BuiltImage) -> None:
    storage = ImageStorage(store)
    layer = shared.layers[0]
    staged = storage.stage_layer_download(layer.digest, layer.size, EVIL)
    staged.write(b"x" * 10)
    staged.suspend()
    with storage.stage_layer_download(layer.digest, layer.size, HONEST) as other:
        assert other.offset == 0
    with storage.stage_layer_download(layer.digest, layer.size, EVIL) as same:
        assert same.offset == 10


# Lending


def claim(source: str = HONEST, received: int = 0, *, whole: bool = False) -> Claim:
    progress = Progress(Repository(source, "a"), Digest.of(b""), 1 << 30)
    made = Claim(progress)
    made.look()
    progress.received = received
    if whole:
        progress.complete(1 << 30)
    return made


def test_the_turn_goes_to_the_registry_that_holds_fewest_and_then_to_who_waits_longest() -> None:
    held = [claim(EVIL), claim(HONEST), claim(EVIL)]
    first, second, third = claim(EVIL), claim(HONEST), claim("third.example")
    assert next_to_get([first, second, third], held, str) is third
    assert next_to_get([first, second], held, str) is second
    assert next_to_get([first], held, str) is first
    assert next_to_get([], held, str) is None


FAST = int(PACE * LOOK) + 1


@pytest.mark.parametrize(
    ("holding", "waiting", "recalled"),
    [
        ([0], [FAST], True),
        ([FAST], [FAST], False),
        ([0], [0], False),  # who waits would do no better
        ([0], [0, FAST], True),
        ([FAST - 2], [FAST], True),
        ([0], [], False),
    ],
)
def test_a_loan_is_taken_back_from_who_starves_it(
    holding: list[int], waiting: list[int], recalled: bool
) -> None:
    loans = [claim(EVIL, received) for received in holding]
    wishes = [claim(HONEST, received) for received in waiting]
    for one in (*loans, *wishes):
        one.look()
    assert to_recall(wishes, loans) is (loans[0] if recalled else None)


def test_what_is_whole_starves_nobody_and_is_recalled_once() -> None:
    loan, wish = claim(EVIL, whole=True), claim(HONEST, whole=True)
    for one in (loan, wish):
        one.look()
        one.look()
    assert to_recall([wish], [loan]) is None
    slow = claim(EVIL)
    slow.look()
    assert to_recall([wish], [slow]) is slow
    slow.recalled.set()
    assert to_recall([wish], [slow]) is None


async def test_a_cancelled_wait_keeps_nothing(autojump_clock: object) -> None:
    lending = Lending(1, str)
    first, second, third = claim(whole=True), claim(whole=True), claim(whole=True)
    await lending.take(first)
    with trio.move_on_after(1):
        await lending.take(second)
    lending.give_back(first)
    await lending.take(third)
    assert third.granted.is_set()
    assert not second.granted.is_set()


# Sites: a name costs nothing


def test_names_of_one_site_hold_extractors_together() -> None:
    names = [f"n{number}.example" for number in range(60)]
    waiting = [*map(claim, names), claim(HONEST)]
    held = [claim(EVIL)]

    def site(registry: str) -> str:
        return "192.0.2.2" if registry == HONEST else "192.0.2.1"

    assert next_to_get(waiting, held, site) is waiting[-1]
    assert next_to_get(waiting, held, str) is waiting[0]


async def test_an_honest_registry_has_its_extractor_beside_sixty_names_of_one(
    store: Path, pool: ExtractorPool
) -> None:
    """All deliver, so nothing starves: whose turn it is decides alone."""
    many, image = [built(1000 + number) for number in range(60)], built(1000)
    names = [f"n{number}.example" for number in range(60)]
    go = trio.Event()
    held = [Delivery(hold=go)]
    of_registries = dict.fromkeys((*names, HONEST), held)
    origin = FakeOrigin((*many, image), sites=dict.fromkeys(names, "192.0.2.1"), of_registries=of_registries)
    done: list[str] = []

    async def want(fetcher: Fetcher, name: str, what: BuiltImage) -> None:
        await have(fetcher, name, what)
        done.append(name)

    async with fetching(store, origin, pool) as fetcher, trio.open_nursery() as nursery:
        for name, one in zip(names, many, strict=True):
            nursery.start_soon(want, fetcher, name, one)
        with trio.fail_after(60):
            while len(fetcher.journal.active) < 60:  # noqa: ASYNC110
                await trio.sleep(0.05)
            await trio.sleep(0.5)
            nursery.start_soon(want, fetcher, HONEST, image)
            while len(fetcher.journal.active) < 61:  # noqa: ASYNC110
                await trio.sleep(0.05)
            await trio.sleep(0.5)
            go.set()
    assert done.index(HONEST) < 10, f"names of one site came first: {done}"


async def test_a_site_is_asked_for_beside_the_work_and_anew_after_a_while(autojump_clock: object) -> None:
    image = built(10)
    origin = FakeOrigin((image,), sites={EVIL: "192.0.2.1"})
    located = LocatingOrigin(origin)
    await located.ask(FetchManifest(Repository(EVIL, "a/b"), image.digest))
    origin.sites[EVIL] = "192.0.2.2"
    await located.ask(FetchManifest(Repository(EVIL, "a/b"), image.digest))
    assert located.of(EVIL) == "192.0.2.1"
    await trio.sleep(LASTS + 1)
    await located.ask(FetchManifest(Repository(EVIL, "a/b"), image.digest))
    assert located.of(EVIL) == "192.0.2.2"


async def test_a_site_that_is_not_found_holds_nobody_up() -> None:
    class Lost(FakeOrigin):
        async def locate(self, registry: str) -> str:
            await trio.sleep_forever()
            raise AssertionError

    image = built(10)
    located = LocatingOrigin(Lost((image,)))
    with trio.fail_after(5):
        await located.ask(FetchManifest(Repository(EVIL, "a/b"), image.digest))
        with pytest.raises(NotFound):
            await located.ask(FetchManifest(Repository(EVIL, "a/b"), Digest.of(b"")))
    assert located.of(EVIL) == UNKNOWN


def test_no_site_has_more_waits_than_are_free() -> None:
    sites: dict[str, str] = {}
    shares = WaitShares(100, lambda registry: sites.get(registry, UNKNOWN))
    with contextlib.ExitStack() as stack:

        def come(name: str) -> int:
            for number in range(200):
                try:
                    stack.enter_context(shares.of(name.format(number)))
                except WaitRefused:
                    return number
            raise AssertionError("nobody is refused")

        assert come("n{}.example") == 50, "names nobody knows the site of have one share"
        sites.update({f"n{number}.example": "192.0.2.1" for number in range(60)})
        assert come("n59.example") == 0, "their callers count where they turned out to be"
        sites[HONEST] = "192.0.2.2"
        assert come(HONEST) == 25
        assert come("unknown.example") == 13
        assert len(shares) == 88
    assert len(shares) == 0
    with shares.of(EVIL):
        assert len(shares) == 1


# Large documents: what takes milliseconds is no matter for the loop


LARGE = {"Labels": {f"label{number}": "x" * 1000 for number in range(200)}}


def large_image() -> BuiltImage:
    """Make an image whose manifest and config are both large."""
    annotations = {f"note{number}": "x" * 1000 for number in range(200)}
    return images.image(images.layer(images.file("a")), runtime=LARGE, annotations=annotations)


async def test_large_documents_are_not_read_in_the_loop(
    store: Path, pool: ExtractorPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the registry, and after a restart from the store, for whoever enters the image."""
    readers: list[threading.Thread] = []
    read = DocumentShelf.read

    def noted(self: DocumentShelf[Any], digest: Digest) -> bytes:
        raw = read(self, digest)
        readers.append(threading.current_thread())
        return raw

    monkeypatch.setattr(DocumentShelf, "read", noted)
    image = large_image()
    repository = Repository(HONEST, "a/b")
    for origin in (FakeOrigin((image,)), FakeOrigin(())):
        async with fetching(store, origin, pool) as fetcher:
            known = KnownImages(fetcher._storage, Platform("linux", "amd64"))
            readers.clear()
            rounds = 0
            while isinstance(found := known.enter(repository, image.digest), Need):
                rounds += 1
                is_here = rounds > 1 or not origin.images
                assert isinstance(found, UnreadNeed) == is_here
                assert known.documents.is_complete(repository, image.digest) == is_here
                await fetcher.obtain(found)
            assert rounds <= 2
            assert found.image is not None
            assert len(readers) >= 2
            assert threading.main_thread() not in readers
    assert not origin.asked


async def test_a_large_document_that_is_none_is_read_once(store: Path, pool: ExtractorPool) -> None:
    config = b'{"rootfs": 1, "x": "%s"}' % (b"x" * 200_000)
    image = images.image(images.layer(images.file("a")))
    manifest = json.loads(image.manifest)
    manifest["config"] |= {"digest": str(Digest.of(config)), "size": len(config)}
    raw = json.dumps(manifest).encode()
    digest = Digest.of(raw)
    async with fetching(store, FakeOrigin(()), pool) as fetcher:
        storage = fetcher._storage
        storage.save_manifest(raw, digest)
        storage.save_config(config, Digest.of(config))
        known = KnownImages(storage, Platform("linux", "amd64"))
        repository = Repository(HONEST, "a/b")
        need = known.enter(repository, digest)
        assert isinstance(need, UnreadNeed)
        await fetcher.obtain(need)
        found = known.enter(repository, digest)
        assert isinstance(found, ImageDocuments)
        assert isinstance(found.problem, InvalidDocument)
