"""Layers in every compression: what is found of them, remarked and refused."""

import random
from collections.abc import Callable

import pytest

from layerfs.errors import InvalidArchive
from tests.extract.extracting import Extract, digest_of
from tests.support.images import Compression, compress, file, tar

TEXT = random.Random(1).randbytes(200_000) + bytes(300_000)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "bzip2", "xz"])
def test_a_layer_may_be_compressed_in_any_way(extract: Extract, compression: Compression) -> None:
    archive = tar([file("f", TEXT)])
    blob = compress(archive, compression)

    tree = extract(archive=blob)

    found = tree.extraction
    assert (tree.path / "f").read_bytes() == TEXT
    assert (found.compression, found.digest, found.diff_id) == (
        compression,
        digest_of(blob),
        digest_of(archive),
    )
    assert (found.blob_size, found.tar_size) == (len(blob), len(archive))
    assert tree.warnings == ()


@pytest.mark.parametrize(
    ("media_type", "warns"),
    [
        ("application/vnd.oci.image.layer.v1.tar+gzip", False),
        ("application/vnd.oci.image.layer.v1.tar+zstd", True),
        ("application/vnd.oci.image.layer.v1.tar", True),
        ("application/octet-stream", False),
        ("", False),
    ],
)
def test_a_media_type_that_disagrees_is_only_remarked(extract: Extract, media_type: str, warns: bool) -> None:
    tree = extract(archive=compress(tar([file("f")]), "gzip"), media_type=media_type)

    assert tree.names() == {"f"}
    assert len(tree.warnings) == int(warns)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda blob: blob[:-1], id="truncated"),
        pytest.param(lambda blob: blob + b"garbage", id="garbage behind it"),
        pytest.param(lambda blob: b"not an archive at all", id="no archive"),
    ],
)
def test_a_bad_blob_with_the_right_digest_is_a_bad_archive(
    extract: Extract, damage: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(InvalidArchive):
        extract(archive=damage(compress(tar([file("f", TEXT)]), "gzip")))
