"""A daemon and a store that the tests of one module share, and images as they are needed."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.oci import Tag
from tests.overlay.scene import Scene, command, mounted_quietly
from tests.support import daemon, mounts
from tests.support.daemon import Daemon
from tests.support.registry import Registry


@pytest.fixture(scope="module")
def scene(_session_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A mount that lives as long as the module."""
    with _mounted(_session_registry, tmp_path_factory.mktemp("scene") / "store") as made:
        yield made


@pytest.fixture(scope="module")
def plain_scene(_session_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The same on a store without the overlay form, on a filesystem that refuses it."""
    store = tmp_path_factory.mktemp("plain") / "store"
    with mounts.ramfs(store), _mounted(_session_registry, store) as made:
        yield made


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Daemon]:
    """A mount of one test, which completes nothing behind those who look."""
    quietly = mounted_quietly(tmp_path)
    with daemon.running(tmp_path / "store", tmp_path / "mount", environment=quietly) as running:
        yield running


@pytest.fixture
def root(mounted: Daemon, pushed: Tag, tmp_path: Path) -> Iterator[Path]:
    """The merged root, lazily, of the image that the module has *pushed*."""
    with mounts.mountpoint(tmp_path / "root") as path:
        command("overlay", "--lazy", "always", "--store", mounted.store, str(pushed), path)
        yield path


@contextlib.contextmanager
def _mounted(registry: Registry, store: Path) -> Iterator[Scene]:
    """Mount at a short path: mount(2) takes no more than a page of options."""
    mountpoint = Path(tempfile.mkdtemp(prefix="lf", dir="/tmp"))
    try:
        with daemon.running(store, mountpoint) as running:
            yield Scene(registry, running)
    finally:
        mounts.clear(mountpoint)
        for log in mountpoint.parent.glob(f"{mountpoint.name}.*.log"):
            log.unlink()
        shutil.rmtree(mountpoint)
