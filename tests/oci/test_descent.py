"""From an index to a manifest: how deep, in which order, and what is said of a document that is not here."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import InvalidDocument, PlatformMissing
from layerfs.oci import (
    Descriptor,
    Digest,
    Index,
    Manifest,
    Platform,
    descend,
    documents_below,
    parse_manifest,
)
from layerfs.oci import mediatype as types
from layerfs.oci.descent import MAX_INDEX_DEPTH
from tests.support.images import file, image, layer

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
IMAGE = image(layer(file("f", b"x")), platform=AMD64)
Documents = dict[Digest, Manifest | Index]
NOTHING: Documents = {}


def index_of(*below: Manifest | Index, platform: Platform = AMD64) -> Index:
    entries = [
        {
            "mediaType": each.media_type,
            "digest": str(each.digest),
            "size": len(each.raw),
            "platform": {"os": platform.os, "architecture": platform.architecture},
        }
        for each in below
    ]
    raw = json.dumps({"schemaVersion": 2, "mediaType": types.OCI_INDEX, "manifests": entries}).encode()
    found = parse_manifest(raw, Digest.of(raw))
    assert isinstance(found, Index)
    return found


def manifest() -> Manifest:
    found = parse_manifest(IMAGE.manifest, IMAGE.digest)
    assert isinstance(found, Manifest)
    return found


def nested(depth: int) -> list[Manifest | Index]:
    """Return *depth* indexes, the innermost first, around one manifest, which stands at the beginning."""
    found: list[Manifest | Index] = [manifest()]
    for _ in range(depth):
        found.append(index_of(found[-1]))
    return found


def by_digest(documents: Sequence[Manifest | Index]) -> Documents:
    return {each.digest: each for each in documents}


@pytest.mark.parametrize("depth", range(MAX_INDEX_DEPTH + 1))
def test_as_many_indexes_as_are_allowed_lead_to_the_manifest(depth: int) -> None:
    documents = nested(depth)

    assert descend(documents[-1], AMD64, by_digest(documents).get) == documents[0]
    assert list(documents_below(documents[-1].digest, by_digest(documents).get)) == documents[::-1]


def test_one_index_more_is_refused_and_not_walked() -> None:
    documents = nested(MAX_INDEX_DEPTH + 1)

    with pytest.raises(InvalidDocument, match=f"more than {MAX_INDEX_DEPTH} indexes inside each other"):
        descend(documents[-1], AMD64, by_digest(documents).get)
    walked = list(documents_below(documents[-1].digest, by_digest(documents).get))
    assert walked == documents[:0:-1]


@given(st.integers(1, MAX_INDEX_DEPTH), st.data())
def test_the_first_document_that_is_missing_is_named(depth: int, data: st.DataObject) -> None:
    documents = nested(depth)
    missing = data.draw(st.sampled_from(documents[:-1]))
    have = by_digest([each for each in documents if each is not missing])

    found = descend(documents[-1], AMD64, have.get)

    assert isinstance(found, Descriptor)
    assert (found.digest, found.size) == (missing.digest, len(missing.raw))
    assert missing not in list(documents_below(documents[-1].digest, have.get))


def test_a_platform_that_no_entry_is_for_is_refused() -> None:
    with pytest.raises(PlatformMissing):
        descend(index_of(manifest(), platform=ARM64), AMD64, NOTHING.get)


def test_a_walk_meets_each_document_once_however_often_it_is_named() -> None:
    level: Manifest | Index = manifest()
    documents = [level]
    for _ in range(MAX_INDEX_DEPTH):
        level = index_of(*[level] * 500)
        documents.append(level)

    assert list(documents_below(level.digest, by_digest(documents).get)) == documents[::-1]


def test_a_walk_from_what_is_not_here_finds_nothing() -> None:
    assert list(documents_below(IMAGE.digest, NOTHING.get)) == []
