"""Fixtures of the store's tests."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.store import ImageStorage


@pytest.fixture
def storage(store: Path) -> Iterator[ImageStorage]:
    """A new store."""
    with ImageStorage(store) as opened:
        yield opened


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 1 MiB (root only: mark the test)."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "small", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)
