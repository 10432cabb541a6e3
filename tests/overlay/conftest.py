"""A daemon and a store that the tests of one module share, and images as they are needed."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.overlay.scene import Scene
from tests.support import daemon, mounts
from tests.support.registry import Registry


@pytest.fixture(scope="module")
def scene(_session_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A mount that lives as long as the module; use repository names of your own.

    Its mountpoint is short: mount(2) takes no more than a page of options.
    """
    mountpoint = Path(tempfile.mkdtemp(prefix="lf", dir="/tmp"))
    try:
        with daemon.running(tmp_path_factory.mktemp("scene") / "store", mountpoint) as running:
            yield Scene(_session_registry, running)
    finally:
        mounts.clear(mountpoint)
        for log in mountpoint.parent.glob(f"{mountpoint.name}.*.log"):
            log.unlink()
        shutil.rmtree(mountpoint)
