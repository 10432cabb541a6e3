"""Each tree begins where its filesystem has room, not beside those that were just removed."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.oci import Digest
from layerfs.store import ImageStorage
from tests.conftest import skip_for_lack_of
from tests.support.mounts import mounted

pytestmark = pytest.mark.needs_root

DIGEST = Digest.of(b"a layer")


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """A fresh one."""
    image = tmp_path / "image"
    with image.open("wb") as opened:
        opened.truncate(64 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
    except FileNotFoundError:
        skip_for_lack_of("mkfs.ext4")
    with mounted("ext4", str(image), tmp_path / "disk", "loop") as disk:
        yield disk


def flags(directory: Path) -> str:
    """Return the letters that chattr(1) has for the flags of *directory*."""
    done = subprocess.run(["lsattr", "-d", directory], check=True, capture_output=True, text=True)
    return done.stdout.split()[0]


def test_ext4_is_told_that_trees_have_nothing_to_do_with_one_another(ext4: Path) -> None:
    with ImageStorage(ext4 / "store") as storage, storage.stage_tree(DIGEST) as tree:
        assert "T" in flags(tree.path.parent)
        assert "T" not in flags(tree.path)


def test_a_flag_that_its_owner_set_stays(ext4: Path) -> None:
    with ImageStorage(ext4 / "store") as storage:
        extracted = storage.layer_extracted_path(DIGEST).parent
        subprocess.run(["chattr", "+A", extracted], check=True)
        with storage.stage_tree(DIGEST):
            assert {"A", "T"} <= set(flags(extracted))
