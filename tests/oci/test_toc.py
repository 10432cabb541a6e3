"""What annotations of a layer say of its TOC."""

import pytest

from layerfs.errors import InvalidDocument
from layerfs.oci import Descriptor, Digest
from layerfs.oci.toc import TOC_MAX, Stretch, TocKind, TocPlace, toc_place

SIZE = 10_000
A, B = Digest.of(b"a"), Digest.of(b"b")
STARGZ = "containerd.io/snapshot/stargz/toc.digest"
NEW, OLD = "io.github.containers.zstd-chunked.", "io.containers.zstd-chunked."


def place(media: str = "gzip", **annotations: str) -> TocPlace | None:
    """Return what the annotations say, their names shortened to sg, new_ and old_."""
    names = {"sg": STARGZ}
    for short, prefix in (("new", NEW), ("old", OLD)):
        names |= {
            f"{short}_sum": f"{prefix}manifest-checksum",
            f"{short}_at": f"{prefix}manifest-position",
            f"{short}_split": f"{prefix}tarsplit-position",
        }
    return toc_place(
        Descriptor(
            f"application/vnd.oci.image.layer.v1.tar+{media}",
            Digest.of(b"blob"),
            SIZE,
            annotations={names[name]: text for name, text in annotations.items()},
        )
    )


def test_a_layer_without_annotations_has_no_toc() -> None:
    assert place() is None


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(place(sg=str(A)), TocPlace(TocKind.ESTARGZ, A), id="eStargz"),
        pytest.param(
            place("zstd", sg=str(A)),
            TocPlace(TocKind.STARGZ_ZSTD, A),
            id="stargz's, no position",
        ),
        pytest.param(
            place("zstd", sg=str(A), old_sum=str(B), old_at="9:8:7:1"),
            TocPlace(TocKind.STARGZ_ZSTD, A, Stretch(9, 8, 7)),
            id="stargz's zstd:chunked",
        ),
        pytest.param(
            place("zstd", old_sum=str(A), old_at="9:8:7:1"),
            TocPlace(TocKind.ZSTD_CHUNKED, A, Stretch(9, 8, 7)),
            id="zstd:chunked under its older name",
        ),
        pytest.param(
            place("zstd", new_sum=str(A), new_at="9:8:7:1"),
            TocPlace(TocKind.ZSTD_CHUNKED, A, Stretch(9, 8, 7)),
            id="zstd:chunked",
        ),
        pytest.param(
            place("zstd", new_sum=str(A), new_at="9:8:7:1", new_split="25:9:100"),
            TocPlace(TocKind.ZSTD_CHUNKED, A, Stretch(9, 8, 7), Stretch(25, 9, 100)),
            id="zstd:chunked with tar-split",
        ),
    ],
)
def test_annotations_say_where_the_toc_is(found: TocPlace, expected: TocPlace) -> None:
    assert found == expected


@pytest.mark.parametrize(
    ("annotations", "why"),
    [
        ({"sg": str(A), "new_sum": str(A), "new_at": "9:8:7:1"}, "one TOC"),
        ({"old_sum": str(A), "old_at": "9:8:7:1", "new_sum": str(A), "new_at": "9:8:7:1"}, "one TOC"),
        ({"sg": "sha256:abc"}, "toc.digest"),
        ({"sg": ""}, "toc.digest"),
        ({"new_sum": "md5:abc", "new_at": "9:8:7:1"}, "not a supported digest"),
        ({"new_sum": str(A)}, "expected decimal numbers"),
        ({"new_sum": str(A), "new_at": ""}, "expected decimal numbers"),
        ({"new_sum": str(A), "new_at": "9:8:7"}, "expected decimal numbers"),
        ({"new_sum": str(A), "new_at": "9:8:7:1:1"}, "expected decimal numbers"),
        ({"new_sum": str(A), "new_at": "-9:8:7:1"}, "expected decimal numbers"),
        ({"new_sum": str(A), "new_at": "+9:8:7:1"}, "expected decimal numbers"),
        ({"new_sum": str(A), "new_at": " 9:8:7:1"}, "expected decimal numbers"),
        ({"new_sum": str(A), "new_at": "9:8:7:1\n"}, "expected decimal numbers"),
        ({"new_sum": str(A), "new_at": "9:8:7:0x1"}, "expected decimal numbers"),
        ({"new_sum": str(A), "new_at": "٩:8:7:1"}, "expected decimal numbers"),
        ({"new_sum": str(A), "new_at": "9" * 20 + ":8:7:1"}, "expected decimal numbers"),
        ({"new_sum": str(A), "new_at": "9:8:7:2"}, "another kind"),
        ({"new_sum": str(A), "new_at": "0:8:7:1"}, "8 bytes at 0"),
        ({"new_sum": str(A), "new_at": "9:0:7:1"}, "0 bytes at 9"),
        ({"new_sum": str(A), "new_at": "9:8:0:1"}, "8 bytes at 9"),
        ({"new_sum": str(A), "new_at": f"9:{SIZE}:7:1"}, "of a blob of 10000"),
        ({"new_sum": str(A), "new_at": f"{SIZE}:1:7:1"}, "of a blob of 10000"),
        ({"new_sum": str(A), "new_at": f"9:8:{TOC_MAX + 1}:1"}, "at most"),
        ({"new_sum": str(A), "new_at": "9:8:7:1", "new_split": "16:9:100"}, "overlaps"),
        ({"new_sum": str(A), "new_at": "9:8:7:1", "new_split": "8:2:100"}, "overlaps"),
        ({"new_sum": str(A), "new_at": "9:8:7:1", "new_split": "17:9"}, "expected decimal numbers"),
        ({"new_sum": str(A), "new_at": "9:8:7:1", "new_split": f"17:{SIZE}:9"}, "of a blob of 10000"),
        ({"new_sum": str(A), "new_at": "9:8:7:1", "new_split": f"17:9:{TOC_MAX + 1}"}, "at most"),
    ],
)
def test_annotations_that_contradict_something_are_refused(annotations: dict[str, str], why: str) -> None:
    with pytest.raises(InvalidDocument, match=why):
        place("zstd", **annotations)
