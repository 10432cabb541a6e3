"""What `layerfs df` sums up is what du(1) says, on the filesystems that stores lie on."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.catalog.inventory import take_inventory
from layerfs.gc.jobs import collect_garbage
from layerfs.store import ImageStorage
from layerfs.store.scratch import make_scratch
from tests.conftest import skip_for_lack_of
from tests.gc.racing import IMAGES, REPOSITORY
from tests.store.helpers import publish
from tests.support.mounts import clear, mounted, overlay, tmpfs

pytestmark = [pytest.mark.needs_root, pytest.mark.allow_warnings]  # an overlay takes no whiteouts

_IMAGE_BYTES = 512 << 20
"""A sparse file; mkfs.xfs makes nothing smaller."""


@contextlib.contextmanager
def filesystem(kind: str, place: Path) -> Iterator[Path]:
    """Mount a fresh filesystem."""
    if kind == "tmpfs":
        with tmpfs(place / "disk", "mode=755") as disk:
            yield disk
    elif kind == "overlay":
        with tmpfs(place / "below", "mode=755") as below:
            (below / "lower").mkdir()
            with overlay([below / "lower"], below / "overlay") as disk:
                yield disk
            clear(below)
    else:
        image = place / "image"
        with image.open("wb") as opened:
            opened.truncate(_IMAGE_BYTES)
        try:
            subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, capture_output=True)
        except FileNotFoundError:
            skip_for_lack_of(f"mkfs.{kind}")
        with mounted(kind, str(image), place / "disk", "loop") as disk:
            yield disk


def fill(tree: Path) -> None:
    """Write what is easily counted wrong: hard links, holes, long links, names, tiny and empty files."""
    (tree / "whole").write_bytes(os.urandom(300_000))
    for number in range(5):
        os.link(tree / "whole", tree / f"linked-{number}")
    with (tree / "holes").open("wb") as file:
        for place in (0, 3 << 20, 40 << 20):
            file.seek(place)
            file.write(os.urandom(5000))
        file.truncate(64 << 20)
    (tree / "long").symlink_to("x" * 900)
    (tree / "short").symlink_to("whole")
    (tree / "empty").touch()
    os.setxattr(tree / "empty", "user.large", b"x" * 2000)
    for number in range(300):
        directory = tree / f"directory-{number % 7}"
        directory.mkdir(exist_ok=True)
        (directory / f"a long name, so that its directory grows: {number}").write_bytes(b"x" * number)


def agrees(storage: ImageStorage) -> bool:
    """Compare, once the disk has decided what things take."""
    os.sync()
    du = subprocess.run(["du", "-s", "-B1", storage.images_dir], check=True, capture_output=True)
    assert take_inventory(storage).total == int(du.stdout.split()[0])
    return True


@pytest.mark.parametrize("kind", ["tmpfs", "ext4", "xfs", "btrfs", "overlay"])
def test_df_says_what_du_says_on(kind: str, tmp_path: Path) -> None:
    with filesystem(kind, tmp_path) as disk, ImageStorage(disk / "store") as storage:
        assert agrees(storage)
        layers = [publish(storage, content, fill) for content in (b"one", b"two")]
        storage.publish_cover([layer.digest for layer in layers])
        storage.save_manifest(IMAGES[0].manifest, IMAGES[0].digest)
        storage.refs.write(REPOSITORY.with_tag("1"), IMAGES[0].digest)
        with storage.stage_layer_download(IMAGES[0].config_digest, 10_000) as staged:
            staged.write(b"x" * 5000)
        scratch = make_scratch(storage.images_dir, b"/nowhere", layers[0].path)
        (scratch.upper / "file").write_bytes(bytes(20_000))
        scratch.lock.release()
        with storage.lease("one", [layers[0].digest]):
            assert agrees(storage)  # measured while the trees are pending
            storage.make_durable()
            assert agrees(storage)
            assert agrees(storage)  # as it was kept
            before = take_inventory(storage).total
            done = collect_garbage(storage)
            freed = sum(held.size for held in done.removed.values())
            assert agrees(storage)
            assert freed > 300_000
            assert before - take_inventory(storage).total >= 0.99 * freed
            assert storage.open_layer(layers[0].digest) is not None
        collect_garbage(storage)
        assert agrees(storage)
