"""What the disk says: no space, no write access, a directory too deep to be removed in one breath."""

import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from layerfs.errors import StoreFull, StoreReadOnly
from tests.extract.extracting import Extract
from tests.support.images import file, tar

pytestmark = pytest.mark.needs_root


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(tar([file("a", bytes(3 << 20))]), id="no blocks"),
        pytest.param(tar([file(f"f{n}") for n in range(200)]), id="no inodes"),
    ],
)
def test_a_full_disk_is_said_to_be_full(extract: Extract, small_disk: Path, archive: bytes) -> None:
    target = small_disk / "tree"
    target.mkdir()

    with pytest.raises(StoreFull, match="space"):
        extract.run(msgspec.structs.replace(extract.job(archive), target=str(target)))


def test_a_read_only_disk_is_said_to_be_read_only(extract: Extract, small_disk: Path) -> None:
    target = small_disk / "tree"
    target.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    with pytest.raises(StoreReadOnly):
        extract.run(msgspec.structs.replace(extract.job(tar([file("f")])), target=str(target)))


def test_the_deepest_tree_can_be_replaced(extract: Extract) -> None:
    deep = "/".join(["d"] * 255)

    tree = extract(file(f"{deep}/f"), file("d"))

    assert tree.names() == {"d"}


def test_a_tree_may_be_removed_once_its_worker_is_closed(extract: Extract) -> None:
    archive = tar([file(f"d{n % 7}/f{n}", b"x" * 100) for n in range(5000)])
    for _ in range(5):
        job = extract.job(archive, complete=False, size=len(archive) + 1)
        extractor = extract.pool.acquire()
        extractor.start(job)
        extractor.grown(len(archive))
        while not os.listdir(job.target):
            pass
        extractor.close()
        before = sum(len(names) for _, _, names in os.walk(job.target))
        extract.pool.release(extractor)

        assert sum(len(names) for _, _, names in os.walk(job.target)) == before
