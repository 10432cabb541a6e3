import hashlib
import os
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import InvalidDigest, InvalidReference
from layerfs.oci import Digest, Repository, Tag
from layerfs.store import ImageStorage
from layerfs.store.layout import StagedKind, StagedName, StoreLayout, staged

HEX = "0123456789abcdef" * 4


def test_names_are_those_of_the_seed(storage: ImageStorage, store: Path) -> None:
    digest = f"sha256:{HEX}"
    assert storage.images_dir == store
    assert storage.layer_dir == store / "layers"
    assert storage.manifest_path(digest) == store / f"manifests/sha256-{HEX}.json"
    assert storage.config_path(digest) == store / f"configs/sha256-{HEX}.json"
    assert storage.layer_tarball_path(digest) == store / f"layers/sha256-{HEX}.tar.gz"
    assert storage.layer_extracted_path(digest) == store / f"extracted/sha256-{HEX}"


def test_text_and_value_name_the_same_path(storage: ImageStorage) -> None:
    for digest in (f"sha256:{HEX}", f"sha512:{HEX}{HEX}"):
        assert storage.manifest_path(digest) == storage.manifest_path(Digest.parse(digest))


def test_a_bundle_cache_is_named_by_path_and_manifest(storage: ImageStorage, store: Path) -> None:
    path = "/srv/bundles/app"
    expected = f"local/{hashlib.sha256(path.encode()).hexdigest()[:8]}-{HEX[:8]}"
    assert storage.local_bundle_cache_dir(path, f"sha256:{HEX}") == store / expected
    assert storage.local_bundle_cache_dir(Path(path), f"sha256:{HEX}") == store / expected


BAD_DIGESTS = [
    pytest.param("", id="empty"),
    pytest.param("sha256:", id="no hex"),
    pytest.param("sha256:abc123", id="too short"),
    pytest.param(f"sha256:{HEX}0", id="too long"),
    pytest.param(f"sha256:{HEX.upper()}", id="upper case"),
    pytest.param(f"sha256-{HEX}", id="the file name"),
    pytest.param(f"md5:{HEX[:32]}", id="another algorithm"),
    pytest.param(f"sha512:{HEX}", id="length of another algorithm"),
    pytest.param(f"sha256:../../../../../../etc/passwd{'0' * 37}", id="leads outside"),
    pytest.param(f"../{HEX}", id="parent"),
    pytest.param(f"sha256:{HEX[:-1]}/", id="slash"),
    pytest.param(f"sha256:{HEX[:-1]}\0", id="NUL"),
    pytest.param(f"sha256:{HEX[:-1]}\n", id="newline"),
    pytest.param(f"sha256:{chr(0x660) * 64}", id="digits of another script"),
]


@pytest.mark.parametrize("text", BAD_DIGESTS)
def test_text_that_is_no_digest_never_becomes_a_path(storage: ImageStorage, text: str) -> None:
    before = sorted(os.walk(storage.images_dir))
    operations: list[Any] = [
        storage.manifest_path, storage.config_path, storage.layer_tarball_path, storage.layer_extracted_path,
        storage.has_manifest, storage.load_manifest, storage.has_config, storage.load_config,
        storage.has_layer, storage.verify_layer, storage.open_layer, storage.open_blob, storage.stage_tree,
        storage.stage_config_download, storage.discard_layer, storage.discard_blob, storage.remove_layer,
        storage.lock,
        lambda digest: storage.save_manifest(b"{}", digest),
        lambda digest: storage.save_config(b"{}", digest),
        lambda digest: storage.stage_layer_download(digest, 1),
        lambda digest: storage.extract_layer(digest, "/dev/null"),
        lambda digest: storage.verify_blobs_exist([digest]),
        lambda digest: storage.local_bundle_cache_dir("/srv", digest),
    ]  # fmt: skip
    for operation in operations:
        with pytest.raises(InvalidDigest):
            operation(text)
    assert sorted(os.walk(storage.images_dir)) == before


@pytest.mark.parametrize("tag", ["", ".", "..", "a/b", "a\0", "-x", "a:b", "x" * 129, "a\n", "ü"])
def test_what_is_no_tag_never_becomes_a_path(storage: ImageStorage, tag: str) -> None:
    repository = Repository.parse("alpine")
    for operation in (storage.refs.read, storage.refs.remove):
        with pytest.raises(InvalidReference):
            operation(Tag(repository, tag))
    with pytest.raises(InvalidReference):
        storage.refs.write(Tag(repository, tag), Digest.of(b""))


def test_a_ref_too_long_for_a_file_name_is_refused_with_a_reason(storage: ImageStorage) -> None:
    repository = Repository.of("example.org", "a" * 200)
    with pytest.raises(InvalidReference, match="longer than a file name"):
        storage.refs.write(repository.with_tag("b" * 100), Digest.of(b""))


@given(st.text(max_size=40))
def test_only_staged_names_are_staged_names(text: str) -> None:
    parsed = StagedName.parse(text)
    assert parsed is None
    for kind in get_args(StagedKind):
        if "/" not in text and "\0" not in text:
            name = staged(Path("/x"), text, kind).name
            assert StagedName.parse(name) == StagedName(text, kind)


def test_staged_names_never_repeat() -> None:
    directory = StoreLayout(Path("/x")).layers
    assert len({staged(directory, "a", "downloading") for _ in range(1000)}) == 1000
