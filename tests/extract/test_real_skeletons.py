"""Layers that skopeo, podman and ctr-remote wrote look the same by their TOCs as extracted."""

from pathlib import Path

import pytest

from layerfs.oci.toc import TocKind
from tests.extract.extracting import Extract
from tests.extract.test_skeletons import Skeletons, facts
from tests.support import lazy_images
from tests.support.lazy_layers import SECOND, place_of
from tests.support.tocs import LazyLayer

pytestmark = pytest.mark.needs_root

_MTIME = 6
"""Where the time of change stands in what `facts` says of an entry."""


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("kind", lazy_images.LAZY)
def test_a_layer_looks_the_same_by_its_toc_and_extracted(
    kind: str, number: int, extract: Extract, tmp_path: Path
) -> None:
    built = lazy_images.load(kind)
    place, blob = place_of(built, number), built.layers[number].blob
    split = tmp_path / "split"
    split.write_bytes(blob[place.split.start : place.split.end] if place.split else b"")

    made = Skeletons(extract)(LazyLayer(blob, b"", place), split=str(split) if place.split else "")

    whole = extract.run(extract.job(blob))
    assert whole.extraction.diff_id == str(built.layers[number].diff_id)
    expected = facts(whole)
    if place.kind is not TocKind.ZSTD_CHUNKED:  # stargz-snapshotter writes times in seconds, rounded
        expected = {
            name: (*fact[:_MTIME], (fact[_MTIME] + SECOND // 2) // SECOND * SECOND, *fact[_MTIME + 1 :])
            for name, fact in expected.items()
        }
    assert facts(made) == expected
    assert made.tables == whole.tables
