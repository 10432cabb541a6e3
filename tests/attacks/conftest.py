"""What the attacks have in common: images in a registry, and what they look like undisturbed."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks import ground
from tests.attacks.ground import Ground
from tests.support.registry import Registry


@pytest.fixture(scope="session")
def _session_ground(_session_registry: Registry) -> Iterator[Ground]:
    with tempfile.TemporaryDirectory(prefix="layerfs-test-", dir="/dev/shm") as path:
        yield ground.prepared(_session_registry, Path(path))


@pytest.fixture
def attacked(_session_ground: Ground) -> Iterator[Ground]:
    """The images, and what they look like where nothing disturbs them."""
    with ground.orphans_adopted():
        yield _session_ground
