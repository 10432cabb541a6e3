"""Fixtures of the tests of fetching."""

from collections.abc import Iterator

import pytest

from tests.support.faulty_registry import FaultyRegistry


@pytest.fixture
def faulty() -> Iterator[FaultyRegistry]:
    """A registry with switches for faults, all off."""
    with FaultyRegistry() as running:
        yield running
