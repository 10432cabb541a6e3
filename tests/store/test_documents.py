import os
from collections.abc import Callable
from pathlib import Path

import pytest

from layerfs.errors import (
    DigestMismatch,
    InvalidDocument,
    NotInStore,
    StoreDamaged,
    UnsupportedImage,
)
from layerfs.oci import Digest, Index, Manifest
from layerfs.store import ImageStorage
from tests.store.helpers import leftovers
from tests.support import images

IMAGE = images.image(images.layer(images.file("a", b"1")), images.layer(images.file("b", b"2")))


def test_a_manifest_comes_back_parsed_with_its_exact_bytes(storage: ImageStorage) -> None:
    path = storage.save_manifest(IMAGE.manifest, str(IMAGE.digest))
    assert path == storage.manifest_path(IMAGE.digest)
    assert path.read_bytes() == IMAGE.manifest
    loaded = storage.load_manifest(IMAGE.digest)
    assert isinstance(loaded, Manifest)
    assert loaded.raw == IMAGE.manifest
    assert [layer.digest for layer in loaded.layers] == [layer.digest for layer in IMAGE.layers]


def test_an_index_is_a_manifest_too(storage: ImageStorage) -> None:
    built = images.index(IMAGE)
    storage.save_manifest(built.manifest, built.digest)
    assert isinstance(storage.load_manifest(built.digest), Index)


def test_a_config_comes_back_parsed_with_its_exact_bytes(storage: ImageStorage) -> None:
    assert not storage.has_config(IMAGE.config_digest)
    storage.save_config(IMAGE.config, IMAGE.config_digest)
    assert storage.has_config(IMAGE.config_digest)
    loaded = storage.load_config(str(IMAGE.config_digest))
    assert loaded.raw == IMAGE.config
    assert loaded.diff_ids == tuple(layer.diff_id for layer in IMAGE.layers)


def test_a_config_may_come_by_a_staged_download(storage: ImageStorage) -> None:
    with storage.stage_config_download(IMAGE.config_digest) as staged:
        staged.write(IMAGE.config)
        assert staged.commit().path == storage.config_path(IMAGE.config_digest)
    assert storage.load_config(IMAGE.config_digest).raw == IMAGE.config


def test_saving_again_changes_nothing(storage: ImageStorage) -> None:
    path = storage.save_manifest(IMAGE.manifest, IMAGE.digest)
    before = path.stat()
    storage.save_manifest(IMAGE.manifest, IMAGE.digest)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert leftovers(storage.images_dir) == []


def test_bytes_of_another_digest_are_not_saved(storage: ImageStorage) -> None:
    with pytest.raises(DigestMismatch):
        storage.save_manifest(IMAGE.manifest + b" ", IMAGE.digest)
    with pytest.raises(DigestMismatch):
        storage.save_config(IMAGE.config, IMAGE.digest)
    assert not storage.has_manifest(IMAGE.digest)


def test_a_missing_document_says_what_would_fetch_it(storage: ImageStorage) -> None:
    for load in (storage.load_manifest, storage.load_config):
        with pytest.raises(NotInStore, match=rf"{IMAGE.digest}.*not in the store.*layerfs pull"):
            load(IMAGE.digest)


def test_an_invalid_document_is_named_with_its_field(storage: ImageStorage) -> None:
    raw = b'{"schemaVersion": 2, "config": {"digest": "sha256:1", "size": 1}, "layers": []}'
    storage.save_manifest(raw, Digest.of(raw))
    with pytest.raises(InvalidDocument, match=r"config\.digest"):
        storage.load_manifest(Digest.of(raw))
    raw = b'{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": 3}}'
    storage.save_config(raw, Digest.of(raw))
    with pytest.raises(InvalidDocument, match=r"rootfs\.diff_ids"):
        storage.load_config(Digest.of(raw))
    raw = b'{"schemaVersion": 1}'
    storage.save_manifest(raw, Digest.of(raw))
    with pytest.raises(UnsupportedImage):
        storage.load_manifest(Digest.of(raw))


def _flip(path: Path) -> None:
    path.write_bytes(images.flip_byte(path.read_bytes()))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _huge(path: Path) -> None:
    os.truncate(path, 1 << 32)


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.allow_warnings
@pytest.mark.parametrize("damage", [_flip, _empty, _huge, _link, _fifo])
def test_a_damaged_document_is_noticed_and_healed_by_saving_again(
    storage: ImageStorage, damage: Callable[[Path], None]
) -> None:
    path = storage.save_manifest(IMAGE.manifest, IMAGE.digest)
    damage(path)
    with pytest.raises(StoreDamaged, match=str(path)):
        storage.load_manifest(IMAGE.digest)
    storage.save_manifest(IMAGE.manifest, IMAGE.digest)
    assert storage.load_manifest(IMAGE.digest).raw == IMAGE.manifest


def test_failures_are_not_remembered(storage: ImageStorage) -> None:
    with pytest.raises(NotInStore):
        storage.load_manifest(IMAGE.digest)
    ImageStorage(storage.images_dir).save_manifest(IMAGE.manifest, IMAGE.digest)
    assert storage.has_manifest(IMAGE.digest)
    assert storage.load_manifest(IMAGE.digest) is storage.load_manifest(IMAGE.digest)


def test_the_memory_of_documents_is_bounded_and_transparent(storage: ImageStorage) -> None:
    digests = []
    for number in range(1100):
        raw = b'{"schemaVersion": 2, "manifests": []%s}' % (b" " * number)
        storage.manifest_path(Digest.of(raw)).write_bytes(raw)
        digests.append(Digest.of(raw))
    for _ in range(2):
        assert [storage.load_manifest(digest).digest for digest in digests] == digests


def test_documents_that_are_kept_have_an_end(storage: ImageStorage) -> None:
    """However large documents are that many images bring, the daemon holds few of them."""
    kept = []
    for number in range(8):
        config = b'{"rootfs": {}, "author": "%d%s"}' % (number, b"x" * (3 << 20))
        kept.append(Digest.of(config))
        storage.save_config(config, kept[-1])
        assert storage.is_unread(kept[-1])
        storage.load_config(kept[-1])
        assert not storage.is_unread(kept[-1])
    assert [storage.is_unread(digest) for digest in kept] == [True] * 3 + [False] * 5
    assert storage._configs._known_bytes <= 16 << 20
    storage._configs.forget(kept[-1])
    assert storage.is_unread(kept[-1])
