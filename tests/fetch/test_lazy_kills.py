"""kill -9 while lazy layers are fetched: nothing wrong, nothing half, and it goes on where it was."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from layerfs.extract.client import ExtractorPool
from layerfs.fetch.fetcher import Fetcher
from layerfs.fetch.parts import spans_of
from layerfs.fetch.spans import GAP_MAX, Span, missing
from layerfs.needs import FileNeed, LayersNeed, TocNeed
from layerfs.oci import Digest, Image, Repository
from layerfs.store import ImageStorage
from tests.fetch.test_lazy import PLATFORM, Scene
from tests.support import images
from tests.support.faulty_registry import FaultyRegistry
from tests.support.tocs import LazyLayer, estargz

_NOISE = random.Random(7)
FILES = {f"d/{number}": _NOISE.randbytes(40_000 * (number % 5 + 1)) for number in range(30)}
LAYER = estargz(images.tar([images.file(name, content) for name, content in FILES.items()]), chunk=64 << 10)

_OWNER = """
import sys, trio
from pathlib import Path
from tests.fetch.test_lazy_kills import PLATFORM, fetch_files
from layerfs.extract.client import ExtractorPool
from layerfs.fetch.opening import open_fetcher
from layerfs.fetch.origin import InProcess
from layerfs.layer.budgets import Budgets
from layerfs.needs import LayersNeed
from layerfs.oci import Digest, Image, Repository
from layerfs.registry.client import RegistryClient
from layerfs.store import ImageStorage
from tests.support.registry_client import quick

async def main(registry, manifest, store):
    storage = ImageStorage(store)
    with ExtractorPool(1) as pool:
        async with RegistryClient(quick()) as client, open_fetcher(
            storage, InProcess(client), pool, platform=PLATFORM, budgets=Budgets(), workers=1
        ) as fetcher:
            repository = Repository(registry, "a/b")
            found = await fetcher.image(repository, Digest.parse(manifest))
            image = Image.of(found, storage.load_config(found.config.digest))
            print("begun", flush=True)
            await fetch_files(fetcher, storage, repository, image)
            await fetcher.obtain(LayersNeed(repository, image, (0,)))

trio.run(main, *sys.argv[1:])
"""


async def fetch_files(fetcher: Fetcher, storage: ImageStorage, repository: Repository, image: Image) -> None:
    """Have the listing, and each file alone."""
    await fetcher.obtain(TocNeed(repository, image, (0,)))
    toc = LAYER.place.digest
    for id_ in sorted(storage.lazy.object_ids(toc)):
        await fetcher.obtain(FileNeed(repository, image, 0, toc, id_))


def check(store: Path) -> None:
    """Require that what has a name is what that says."""
    storage = ImageStorage(store)
    toc = LAYER.place.digest
    if storage.lazy.open_skeleton(toc) is None:
        return
    contents = dict(storage.lazy.contents(toc))
    for id_, _ in storage.lazy.objects.all():
        found = storage.lazy.objects.find(id_)
        assert found is None or str(Digest.of(found.path.read_bytes())) == contents[id_].digest


def asked_for(scene: Scene) -> list[Span]:
    """Return the ranges of the layer that were asked for."""
    asked = [
        one for one in scene.faulty.asked if one.method == "GET" and one.path.endswith(str(LAYER.digest))
    ]
    found = [one.headers.get("range", "").removeprefix("bytes=").partition("-") for one in asked]
    return [
        Span(int(start), int(last) + 1) if start else Span(0, len(LAYER.blob)) for start, _, last in found
    ]


def run_and_kill(argv: list[str], seconds: float) -> None:
    """Run a process that fetches, and kill it so long after it has begun."""
    owner = subprocess.Popen(argv, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    with owner, owner.stdout:
        assert owner.stdout.readline() == b"begun\n"
        try:
            owner.wait(seconds)
        except subprocess.TimeoutExpired:
            owner.kill()


@pytest.mark.parametrize(
    "round_", [0, *(pytest.param(number, marks=pytest.mark.long) for number in range(1, 67))]
)
async def test_killed_at_any_moment(
    round_: int, faulty: FaultyRegistry, pool: ExtractorPool, tmp_path: Path
) -> None:
    scene = Scene(faulty, pool, tmp_path / "store")
    chance = random.Random(round_)
    async with scene.fetching() as fetcher:
        repository, image = await scene.image(fetcher, LAYER)
    argv = [sys.executable, "-c", _OWNER, repository.registry, str(image.manifest.digest), str(scene.path)]
    for _ in range(3):
        run_and_kill(argv, chance.random() * 1.5)
        check(scene.path)
    async with scene.fetching() as fetcher:
        storage = scene.storage
        kept = spans_of(storage.parts.of(LAYER.digest, repository.registry))
        before = len(asked_for(scene))
        await fetch_files(fetcher, storage, repository, image)
        for span in asked_for(scene)[before:]:
            twice = span.size - sum(one.size for one in missing([span], kept))
            assert twice <= GAP_MAX, f"{span}: {twice} bytes of it were kept in {kept}"
        ids = set(storage.lazy.object_ids(LAYER.place.digest))
        assert {id_ for id_, _ in storage.lazy.objects.all()} == ids
        check(scene.path)
        await fetcher.obtain(LayersNeed(repository, image, (0,)))
    assert storage.lazy.tocs.is_equal(LAYER.place.digest, LAYER.digest)
    check(scene.path)


def test_the_layer_has_many_files() -> None:
    assert isinstance(LAYER, LazyLayer)
    assert len(FILES) == 30
    assert PLATFORM.os == "linux"
