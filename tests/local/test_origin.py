"""A local source in the place of a registry: verified documents, bytes of blobs from any offset."""

from pathlib import Path

import pytest

from layerfs.errors import DigestMismatch, NotFound, SizeMismatch
from layerfs.local import SourceImage, SourceName, open_source
from layerfs.local.origin import LocalOrigin
from layerfs.oci import Descriptor, Repository, mediatype
from tests.support.images import file, flip_byte, image, layer, write_layout

LAYER = layer(file("a", b"content" * 1000))
BUILT = image(LAYER)
REPOSITORY = Repository.parse("a/b")


def origin(tmp_path: Path) -> LocalOrigin:
    path = write_layout(tmp_path / "lay", BUILT)
    found = SourceImage(BUILT.digest, ())
    return LocalOrigin(
        open_source(SourceName.parse(f"oci:{path}")), "oci:lay", {REPOSITORY.with_tag("1"): found}
    )


def blob(tmp_path: Path, hex_: str) -> Path:
    return tmp_path / "lay/blobs/sha256" / hex_


def config() -> Descriptor:
    return Descriptor(mediatype.OCI_CONFIG, BUILT.config_digest, len(BUILT.config))


async def read(source: LocalOrigin, offset: int = 0, end: int | None = None) -> tuple[int, bytes]:
    async with source.stream_blob(REPOSITORY, LAYER.descriptor(), offset, end) as stream:
        return stream.offset, b"".join([chunk async for chunk in stream])


async def test_it_knows_its_own_tags_and_no_others(tmp_path: Path) -> None:
    source = origin(tmp_path)
    assert (await source.resolve(REPOSITORY.with_tag("1"))).digest == BUILT.digest
    with pytest.raises(NotFound, match="no registry is asked"):
        await source.resolve(REPOSITORY.with_tag("2"))


async def test_documents_are_verified(tmp_path: Path) -> None:
    source = origin(tmp_path)
    assert await source.fetch_manifest(REPOSITORY, BUILT.digest) == (BUILT.manifest, "")
    assert await source.fetch_config(REPOSITORY, config()) == BUILT.config
    with pytest.raises(SizeMismatch):
        await source.fetch_manifest(REPOSITORY, BUILT.digest, 3)
    for digest, content in ((BUILT.digest, BUILT.manifest), (BUILT.config_digest, BUILT.config)):
        blob(tmp_path, digest.hex).write_bytes(flip_byte(content))
    with pytest.raises(DigestMismatch):
        await source.fetch_manifest(REPOSITORY, BUILT.digest)
    with pytest.raises(DigestMismatch):
        await source.fetch_config(REPOSITORY, config())


async def test_a_missing_document_or_blob_is_not_found(tmp_path: Path) -> None:
    source = origin(tmp_path)
    for found in blob(tmp_path, "x").parent.iterdir():
        found.unlink()
    with pytest.raises(NotFound, match="incomplete"):
        await source.fetch_manifest(REPOSITORY, BUILT.digest)
    with pytest.raises(NotFound):
        await read(source)


@pytest.mark.parametrize("offset", [0, 1, LAYER.size - 1, LAYER.size])
async def test_a_blob_is_read_from_any_offset(tmp_path: Path, offset: int) -> None:
    assert await read(origin(tmp_path), offset) == (offset, LAYER.blob[offset:])


@pytest.mark.parametrize(("offset", "end"), [(0, 1), (7, 20), (3, 3), (5, 1 << 30)])
async def test_a_part_of_a_blob_ends_where_it_should(tmp_path: Path, offset: int, end: int) -> None:
    assert await read(origin(tmp_path), offset, end) == (offset, LAYER.blob[offset:end])


async def test_a_blob_of_another_size_is_refused_at_once(tmp_path: Path) -> None:
    source = origin(tmp_path)
    blob(tmp_path, LAYER.digest.hex).write_bytes(LAYER.blob + b"x")
    with pytest.raises(SizeMismatch):
        await read(source)


async def test_a_file_of_its_own_is_offered_for_linking(tmp_path: Path) -> None:
    source = origin(tmp_path)
    assert source.blob_file(LAYER.descriptor()) == blob(tmp_path, LAYER.digest.hex)
