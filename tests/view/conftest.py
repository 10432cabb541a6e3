"""A scene for each test, and its workers ended."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.view.scene import Scene


@pytest.fixture
def scene(store: Path) -> Iterator[Scene]:
    """An empty store and a tree over it."""
    with closing(Scene(store)) as scene:
        yield scene
