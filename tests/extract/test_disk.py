"""What the disk says: no space, no write access, a directory too deep to be removed in one breath."""

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from layerfs.errors import StoreFull, StoreReadOnly
from layerfs.layer.tables import lost_at
from tests.conftest import skip_for_lack_of
from tests.extract.extracting import Extract, run_alone
from tests.support.images import directory, file, symlink, tar
from tests.support.mounts import mounted

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


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EIO", "EROFS"])
def test_full_disk_forgets_attributes(extract: Extract, error: str) -> None:
    """An error of the moment fails the layer; it is not one that the disk cannot carry the attribute."""
    if shutil.which("strace") is None:
        skip_for_lack_of("strace")
    calls = "inject=setxattr,lsetxattr,fsetxattr"
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"{calls}:error={error}"]
    entries = [file("f", xattrs={"user.a": b"1"}), symlink("l", "f", xattrs={"trusted.b": b"2"})]

    for entry in entries:
        job = extract.job(tar([entry]))
        with pytest.raises(AssertionError, match=r"errors\.Store"):
            run_alone(job, *strace)


def test_an_attribute_too_large_for_the_disk_is_recorded_or_carried(extract: Extract) -> None:
    value = b"x" * 5000  # more than a block of ext4
    tree = extract(file("f", xattrs={"user.a": value, "user.b": b"small"}))

    found = lost_at(tree.tables.lost, b"f")
    noted = found.xattrs if found else {}
    carried = {os.fsencode(name): one for name, one in tree.xattrs("f").items()}
    assert carried | noted == {b"user.a": value, b"user.b": b"small"}


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


def test_a_disk_that_gives_files_the_group_of_their_directory_has_those_of_the_archive(
    extract: Extract, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    with image.open("wb") as opened:
        opened.truncate(16 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
    except FileNotFoundError:
        skip_for_lack_of("mkfs.ext4")
    entries = [directory("d", gid=50), file("d/f"), symlink("d/l", "f"), directory("d/e")]
    with mounted("ext4", str(image), tmp_path / "disk", "loop", "grpid") as disk:
        target = disk / "tree"
        target.mkdir()
        extract.run(msgspec.structs.replace(extract.job(tar(entries)), target=str(target)))

        groups = {name: os.lstat(target / name).st_gid for name in ("d", "d/f", "d/l", "d/e")}
        assert groups == {"d": 50, "d/f": 0, "d/l": 0, "d/e": 0}
