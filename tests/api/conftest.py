"""One image for all faces, in the registry of the session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import layerfs
from tests.support import images
from tests.support.registry import Registry

BASE = images.layer(
    images.directory("etc"),
    images.file("etc/old", b"old"),
    images.file("etc/motd", b"welcome"),
    images.symlink("etc/self", "/etc/motd"),
    images.symlink("etc/out", "../../../../etc/motd"),
    images.symlink("etc/loop", "loop"),
    images.symlink("run", "etc"),
)
TOP = images.layer(images.whiteout("etc/old"), images.file("etc/new", b"x" * 100_000, mode=0o4755))
IMAGE = images.index(images.image(BASE, TOP))


@pytest.fixture(scope="session")
def reference(_session_registry: Registry) -> str:
    """The name of the image."""
    return str(_session_registry.push("api/app", "1", IMAGE))


@pytest.fixture(scope="session")
def pausing(_session_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that tests may pause for a block, beside that of the session."""
    with Registry(tmp_path_factory.mktemp("pausing")) as running:
        yield running


@pytest.fixture(scope="session")
def pulled(reference: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store that has the image, for tests that leave it so; and its name."""
    store = tmp_path_factory.mktemp("pulled") / "store"
    with layerfs.Store.open(store) as opened:
        opened.pull(reference)
    return store, reference
