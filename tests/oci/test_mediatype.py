"""Media types of layers: what they promise."""

import pytest

from layerfs.oci import mediatype


@pytest.mark.parametrize(
    ("compression", "expected"),
    [
        ("gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
        ("zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
        ("none", "application/vnd.oci.image.layer.v1.tar"),
        ("bzip2", "application/vnd.oci.image.layer.v1.tar"),
    ],
)
def test_a_layer_is_typed_by_its_compression_where_there_is_a_type(compression: str, expected: str) -> None:
    assert mediatype.layer_type(compression) == expected


@pytest.mark.parametrize(
    ("media_type", "compression", "expected"),
    [
        pytest.param("application/vnd.oci.image.layer.v1.tar+gzip", "zstd", True, id="another"),
        pytest.param("application/vnd.oci.image.layer.v1.tar+zstd", "zstd", False, id="the same"),
        pytest.param("application/vnd.oci.image.layer.v1.tar", "gzip", True, id="none"),
        pytest.param("application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip", False, id="of Docker"),
        pytest.param("text/plain", "gzip", False, id="no layer's type promises nothing"),
    ],
)
def test_a_broken_promise_is_noticed(media_type: str, compression: str, expected: bool) -> None:
    assert mediatype.promises_other(media_type, compression) is expected
