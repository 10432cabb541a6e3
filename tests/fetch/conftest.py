"""Extractors for all tests of a module."""

from collections.abc import Iterator

import pytest

from layerfs.extract.client import ExtractorPool


@pytest.fixture(scope="module")
def pool() -> Iterator[ExtractorPool]:
    with ExtractorPool(2) as pool:
        yield pool
