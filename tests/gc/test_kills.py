"""SIGKILL at system calls of a collection: what is needed is there, and nothing is half there."""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from layerfs.gc.jobs import collect_garbage
from layerfs.oci import Digest
from layerfs.store import ImageStorage
from tests.gc.racing import DIGESTS, FILES, IMAGES, LAYERS, REPOSITORY, STACKS, content_of, fill, names_of
from tests.store import crash
from tests.store.helpers import as_original, leftovers, publish
from tests.support.clients import wait_until

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(900)]

NAMED, GARBAGE = 0, 3
"""Two images without a layer in common."""


def put(storage: ImageStorage, which: int) -> None:
    """Have an image whole."""
    for number in STACKS[which]:
        publish(storage, LAYERS[number].blob, partial(fill, number=number), entries=FILES)
    storage.publish_cover([DIGESTS[number] for number in STACKS[which]])
    storage.save_manifest(IMAGES[which].manifest, IMAGES[which].digest)
    storage.save_config(IMAGES[which].config, IMAGES[which].config_digest)


def is_whole(storage: ImageStorage, number: int) -> bool:
    """Say whether a layer is there; fail if it is in part."""
    found = storage.open_layer(DIGESTS[number])
    if found is None:
        return False
    assert sorted(os.listdir(found.path)) == names_of(number)
    assert all((found.path / name).read_bytes() == content_of(number) for name in names_of(number))
    return True


def covers(storage: ImageStorage, which: int) -> bool:
    """Say whether the cover of an image is there."""
    return storage.cover([DIGESTS[number] for number in STACKS[which]]) is not None


def check(storage: ImageStorage) -> None:
    """Fail unless all that is named is there, and nothing of the rest in part."""
    assert all(is_whole(storage, number) for number in STACKS[NAMED])
    assert covers(storage, NAMED)
    assert storage.load_manifest(IMAGES[NAMED].digest).raw == IMAGES[NAMED].manifest
    assert storage.load_config(IMAGES[NAMED].config_digest).raw == IMAGES[NAMED].config
    for number in (*STACKS[NAMED], *STACKS[GARBAGE]):
        blob = storage.open_blob(DIGESTS[number])
        assert blob is None or Digest.of(blob.path.read_bytes()) == DIGESTS[number]
    for number in STACKS[GARBAGE]:
        is_whole(storage, number)


def is_collected(storage: ImageStorage) -> bool:
    """Collect garbage; say whether what the one image has that is named is all there is."""
    collect_garbage(storage)
    count = len(STACKS[NAMED])
    expected = {"layers": count, "extracted": 2 * count, "covers": 2}
    return {name: len(os.listdir(storage.images_dir / name)) for name in expected} == expected


def test_a_collection_that_is_killed_anywhere_leaves_nothing_in_part(
    memory: Path, request: pytest.FixtureRequest, tried: Callable[[int], None]
) -> None:
    template, path = memory / "template", memory / "attempt"
    with ImageStorage(template) as storage:
        put(storage, NAMED)
        put(storage, GARBAGE)
        storage.refs.write(REPOSITORY.with_tag("named"), IMAGES[NAMED].digest)

    def attempt(number: int | None) -> crash.Run:
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run(["cp", "-a", template, path], check=True)
        as_original(path)
        victim = ImageStorage(path)
        return crash.run(lambda: collect_garbage(victim), number)

    whole = attempt(None)
    step = 1 if request.config.getoption("--long") else -(-whole.calls // 40)
    points = range(0, whole.calls, step)
    found = set()
    for number in points:
        attempt(number)
        with ImageStorage(path) as storage:
            found |= {Path(left).suffix for left in leftovers(path)}
            storage.sweep()
            assert leftovers(path) == []
            check(storage)
            # Other tests of this machine may have processes that cannot be seen for a moment: then all stays.
            wait_until(partial(is_collected, storage))
            check(storage)
            assert leftovers(path) == []
    assert {".aside", ".removing"} <= found
    tried(len(points))
