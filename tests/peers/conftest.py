"""One pool of extractors for all tests of this directory."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.extract.client import ExtractorPool
from tests.extract.extracting import Extract


@pytest.fixture(scope="package")
def pool(_nothing_is_left_over: None) -> Iterator[ExtractorPool]:
    with ExtractorPool() as pool:
        yield pool


@pytest.fixture
def extract(pool: ExtractorPool, memory: Path) -> Extract:
    return Extract(pool, memory)
