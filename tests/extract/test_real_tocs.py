"""TOCs that skopeo, podman and ctr-remote wrote, against the archives in the same blobs.

``scripts/make-lazy-images`` makes the images; `tests.support.lazy_images` says which there are.
"""

import pytest

from layerfs.errors import InvalidToc
from layerfs.layer.member import Type
from layerfs.layer.tocreader import ESTARGZ_NAME
from layerfs.oci import Digest
from layerfs.oci.toc import TocKind
from tests.support import lazy_images
from tests.support.lazy_layers import archive_of, bytes_of, members_of, place_of, rounded, toc_of

LAYERS = [pytest.param(kind, number, id=f"{kind} {number}") for kind in lazy_images.LAZY for number in (0, 1)]


@pytest.mark.parametrize(("kind", "number"), LAYERS)
def test_a_toc_says_what_the_archive_says(kind: str, number: int) -> None:
    built = lazy_images.load(kind)
    toc_kind = place_of(built, number).kind

    entries = toc_of(built, number)

    archive = archive_of(built.layers[number].blob)
    assert Digest.of(archive) == built.layers[number].diff_id
    assert [entry.member for entry in entries] == [
        rounded(member, toc_kind) for member, _ in members_of(archive)
    ]


@pytest.mark.parametrize(("kind", "number"), LAYERS)
def test_pieces_of_the_blob_make_each_file(kind: str, number: int) -> None:
    built = lazy_images.load(kind)
    blob = built.layers[number].blob

    found = {
        entry.member.name: bytes_of(entry.content, blob)
        for entry in toc_of(built, number)
        if entry.content is not None
    }

    archive = archive_of(blob)
    assert found == {member.name: content for member, content in members_of(archive) if content}
    for entry in toc_of(built, number):
        if entry.content is not None:
            assert entry.content.digest == str(Digest.of(found[entry.member.name]))


@pytest.mark.parametrize("kind", lazy_images.LAZY)
def test_the_images_show_all_that_a_toc_can_say(kind: str) -> None:
    built = lazy_images.load(kind)
    place, entries = place_of(built, 0), toc_of(built, 0)

    contents = [entry.content for entry in entries if entry.content]
    members = {entry.member.name: entry.member for entry in entries}
    assert {member.type for member in members.values()} == set(Type) - {Type.SOCKET}
    assert any(member.xattrs for member in members.values())
    assert {0o4755, 0o1777} <= {member.mode for member in members.values()}
    assert (ESTARGZ_NAME in members) == (place.kind is TocKind.ESTARGZ)
    if place.kind is TocKind.ZSTD_CHUNKED:
        assert any(not piece.digest for content in contents for piece in content.pieces)
    if place.kind is TocKind.ZSTD_CHUNKED or kind in ("debian12-estargz", "debian13-estargz"):
        assert max(len(content.pieces) for content in contents) > 10
    if kind == "debian13-estargz-packed":
        assert b".prefetch.landmark" in members
        assert sum(piece.skip > 512 for content in contents for piece in content.pieces) > 3
    assert (place.split is not None) == (kind in ("debian13-skopeo", "debian13-podman"))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (lazy_images.EXTERNAL, "an external TOC"),
        (lazy_images.LATIN, "was no UTF-8 in the archive"),
        (lazy_images.SPARSE, "tar-split: content where a header should be"),
    ],
)
def test_what_cannot_be_lazy_is_refused_by_its_reason(kind: str, why: str) -> None:
    with pytest.raises(InvalidToc, match=why):
        toc_of(lazy_images.load(kind), 0)


def test_without_tar_split_a_broken_archive_shows_when_it_is_whole() -> None:
    """skopeo writes sparse files out and leaves their headers as they were."""
    built = lazy_images.load(lazy_images.SPARSE_OLD)

    assert [entry.member.name for entry in toc_of(built, 0)] == [b"sparse"]
    assert Digest.of(archive_of(built.layers[0].blob)) != built.layers[0].diff_id


def test_without_tar_split_an_attribute_may_be_in_the_archive_alone() -> None:
    built = lazy_images.load(lazy_images.EMPTY_XATTR)

    (listed,) = (entry.member for entry in toc_of(built, 0))
    ((found, _),) = members_of(archive_of(built.layers[0].blob))
    assert (listed.xattrs, found.xattrs) == (
        {b"user.full": b"value"},
        {b"user.full": b"value", b"user.empty": b""},
    )
