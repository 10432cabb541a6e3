"""Fixtures of the store's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.store import ImageStorage


@pytest.fixture
def storage(store: Path) -> Iterator[ImageStorage]:
    """A new store."""
    with ImageStorage(store) as opened:
        yield opened
