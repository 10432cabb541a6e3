"""One image for all faces, in the registry of the session."""

import itertools
from pathlib import Path

import pytest

import layerfs
from tests.support import images
from tests.support.registry import Registry

_numbers = itertools.count()

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


@pytest.fixture
def reference(registry: Registry) -> str:
    """The name of the image, in a repository of its own."""
    return str(registry.push(f"api/app{next(_numbers)}", "1", IMAGE))


@pytest.fixture(scope="session")
def pulled(_session_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store that has the image, for tests that only read; and its name."""
    store = tmp_path_factory.mktemp("pulled") / "store"
    with layerfs.Store.open(store) as opened:
        name = str(opened.pull(str(_session_registry.push("api/pulled", "1", IMAGE))).reference)
    return store, name
