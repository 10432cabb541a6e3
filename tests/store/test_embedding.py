"""The program of docs/embedding.md, run as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import layerfs
from layerfs.api.options import Options
from layerfs.store import ImageStorage
from tests.store.helpers import leftovers
from tests.support import images
from tests.support.registry import Registry

DOCUMENT = Path(__file__).parents[2] / "docs/embedding.md"

BASE = images.layer(images.directory("etc"), images.file("etc/old"), images.file("etc/motd", b"welcome"))
TOP = images.layer(images.whiteout("etc/old"), images.file("etc/new", b"x" * 100_000))
IMAGE = images.index(images.image(BASE, TOP, TOP, images.layer()))


@pytest.fixture
def program(tmp_path: Path) -> Path:
    found = re.search(r"<!-- program -->\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    path = tmp_path / "embed.py"
    path.write_text(found[1])
    return path


def run(program: Path, store: Path, reference: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(program), str(store), str(reference)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.needs_root
def test_the_program_of_the_documentation_pulls_an_image_that_can_be_mounted(
    program: Path, store: Path, registry: Registry, mountpoint: Path
) -> None:
    reference = registry.push("embedding/app", "1", IMAGE)
    done = run(program, store, reference)
    assert done.returncode == 0, done.stderr
    option = f"lowerdir={done.stdout.strip()}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", option, mountpoint], check=True)
    try:
        assert sorted(path.name for path in (mountpoint / "etc").iterdir()) == ["motd", "new"]
        assert (mountpoint / "etc/motd").read_bytes() == b"welcome"
    finally:
        subprocess.run(["umount", mountpoint], check=True)
    assert leftovers(store) == []
    assert [str(known) for known, _ in ImageStorage(store).refs.all()] == [str(reference)]


def test_it_goes_on_where_it_was_broken_off_and_fetches_nothing_twice(
    program: Path, store: Path, registry: Registry
) -> None:
    reference = registry.push("embedding/again", "1", IMAGE)
    with ImageStorage(store).stage_layer_download(TOP.digest, TOP.size) as staged:
        staged.write(TOP.blob[:50])
    first = run(program, store, reference)
    assert first.returncode == 0, first.stderr
    assert ImageStorage(store).verify_layer(TOP.digest, tree=False)
    mark = registry.mark()
    assert run(program, store, reference).stdout == first.stdout
    assert registry.blob_requests(mark) == []


def test_it_reports_a_corrupt_blob_and_leaves_nothing(
    program: Path, store: Path, own_registry: Registry
) -> None:
    reference = own_registry.push("embedding/corrupt", "1", IMAGE)
    own_registry.corrupt(TOP.digest)
    done = run(program, store, reference)
    assert done.returncode == 1
    assert done.stderr.startswith("DigestMismatch")
    assert leftovers(store) == []


def test_every_operation_that_the_document_names_exists() -> None:
    named = set(re.findall(r"`(?:storage\.|image\.|store\.)?([a-z]+_[a-z_]+)`", DOCUMENT.read_text()))
    known = {*dir(ImageStorage), *dir(layerfs.Store), *dir(layerfs.Image), *Options.__annotations__}
    assert named
    assert sorted(named - known) == []
