import json
import os
import time
from collections.abc import Callable
from errno import EPERM
from pathlib import Path

import pytest

from layerfs.errors import DigestMismatch, NotInStore, StoreError
from layerfs.oci import Digest
from layerfs.store import ImageStorage
from tests.store.helpers import at_once, blob_of, download, extraction_of, leftovers, publish

CONTENT, DIGEST = blob_of(b"one layer")


def record_path(storage: ImageStorage, digest: Digest = DIGEST) -> Path:
    return storage.layer_extracted_path(digest).with_suffix(".json")


def change_record(storage: ImageStorage, **changes: object) -> None:
    path = record_path(storage)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_published_layer_is_there_for_every_process(storage: ImageStorage, store: Path) -> None:
    assert storage.open_layer(DIGEST) is None
    layer = publish(storage, CONTENT)
    assert layer.path == storage.layer_extracted_path(DIGEST)
    assert (layer.path / "content").read_bytes() == CONTENT
    assert storage.open_layer(str(DIGEST)) == layer == ImageStorage(store).open_layer(DIGEST)
    assert layer.record.state == "pending"
    assert leftovers(store) == []


def test_a_staged_tree_is_private_and_goes_with_its_context(storage: ImageStorage) -> None:
    with storage.stage_tree(DIGEST) as tree:
        (tree.path / "file").write_bytes(b"")
        assert tree.path.parent == storage.layer_extracted_path(DIGEST).parent
        assert tree.path.name.startswith(f"{DIGEST.name}.")
        assert tree.path.name.endswith(".extracting")
        assert tree.path.stat().st_mode & 0o777 == 0o700
        assert storage.open_layer(DIGEST) is None
    assert leftovers(storage.images_dir) == []


def test_publication_wants_proof_of_the_same_blob(storage: ImageStorage) -> None:
    blob = download(storage, CONTENT)
    other = download(storage, b"another layer")
    with storage.stage_tree(DIGEST) as tree:
        for proof, found in (
            (blob, extraction_of(b"another layer")),
            (other, extraction_of(CONTENT)),
            (other, extraction_of(b"another layer")),
            (blob, extraction_of(CONTENT, blob_size=1)),
        ):
            with pytest.raises(DigestMismatch):
                storage.publish(tree, proof, found)
    assert storage.open_layer(DIGEST) is None


def test_losing_the_race_is_success_and_removes_the_loser(storage: ImageStorage, store: Path) -> None:
    blob = download(storage, CONTENT)
    other = ImageStorage(store)
    with storage.stage_tree(DIGEST) as first, other.stage_tree(DIGEST) as second:
        (first.path / "first").write_bytes(b"")
        (second.path / "second").write_bytes(b"")
        won = storage.publish(first, blob, extraction_of(CONTENT))
        lost = other.publish(second, blob, extraction_of(CONTENT))
    assert won == lost
    assert os.listdir(won.path) == ["first"]
    assert leftovers(store) == []


def test_an_empty_layer_is_a_layer(storage: ImageStorage) -> None:
    layer = publish(storage, CONTENT, fill=lambda path: None)
    assert storage.open_layer(DIGEST) == layer
    assert publish(storage, CONTENT, fill=lambda path: None) == layer


def test_many_threads_publish_the_same_layer_once(storage: ImageStorage) -> None:
    download(storage, CONTENT)
    inodes = at_once(8, lambda _: {os.stat(publish(storage, CONTENT).path).st_ino for _ in range(5)})
    assert len(set.union(*inodes)) == 1
    assert leftovers(storage.images_dir) == []


def _no_record(storage: ImageStorage) -> None:
    record_path(storage).unlink()


def _no_tree(storage: ImageStorage) -> None:
    (storage.layer_extracted_path(DIGEST) / "content").unlink()
    storage.layer_extracted_path(DIGEST).rmdir()


def _other_boot(storage: ImageStorage) -> None:
    change_record(storage, boot_id="another boot")


def _empty_record(storage: ImageStorage) -> None:
    record_path(storage).write_bytes(b"")


def _zeroed_record(storage: ImageStorage) -> None:
    record_path(storage).write_bytes(bytes(record_path(storage).stat().st_size))


def _other_layer(storage: ImageStorage) -> None:
    publish(storage, b"another layer")
    record_path(storage, Digest.of(b"another layer")).rename(record_path(storage))


def _other_version(storage: ImageStorage) -> None:
    change_record(storage, version=99)


def _linked_record(storage: ImageStorage) -> None:
    record_path(storage).rename(storage.images_dir / "elsewhere.json")
    record_path(storage).symlink_to(storage.images_dir / "elsewhere.json")


def _file_for_tree(storage: ImageStorage) -> None:
    _no_tree(storage)
    storage.layer_extracted_path(DIGEST).write_bytes(b"")


def _link_for_tree(storage: ImageStorage) -> None:
    elsewhere = storage.images_dir / os.urandom(8).hex()
    storage.layer_extracted_path(DIGEST).rename(elsewhere)
    storage.layer_extracted_path(DIGEST).symlink_to(elsewhere)


VOID = [
    _no_record, _no_tree, _other_boot, _empty_record, _zeroed_record, _other_layer, _other_version,
    _linked_record, _file_for_tree, _link_for_tree,
]  # fmt: skip


@pytest.mark.allow_warnings
@pytest.mark.parametrize("damage", VOID)
def test_what_is_not_complete_is_absent_and_can_be_published_again(
    storage: ImageStorage, store: Path, damage: Callable[[ImageStorage], None]
) -> None:
    publish(storage, CONTENT)
    damage(storage)
    for opened in (ImageStorage(store), ImageStorage(store)):
        assert opened.open_layer(DIGEST) is None
        publish(opened, CONTENT)
        layer = opened.open_layer(DIGEST)
        assert layer is not None
        assert (layer.path / "content").read_bytes() == CONTENT
        damage(opened)
    assert ImageStorage(store).sweep().void >= 1
    assert not os.path.lexists(record_path(storage))
    assert not os.path.lexists(storage.layer_extracted_path(DIGEST))
    assert leftovers(store) == []


def test_a_layer_that_another_process_took_away_is_gone_here_too(storage: ImageStorage, store: Path) -> None:
    publish(storage, CONTENT)
    assert storage.open_layer(DIGEST) is not None
    assert ImageStorage(store).discard_layer(DIGEST)
    assert storage.open_layer(DIGEST) is None
    publish(ImageStorage(store), CONTENT)
    assert storage.open_layer(DIGEST) is not None


def test_failures_are_not_remembered(storage: ImageStorage, store: Path) -> None:
    assert storage.open_layer(DIGEST) is None
    assert storage.open_blob(DIGEST) is None
    publish(ImageStorage(store), CONTENT)
    assert storage.open_layer(DIGEST) is not None
    assert storage.open_blob(DIGEST) is not None


def test_a_known_layer_costs_one_lstat(storage: ImageStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(storage, CONTENT)
    first = storage.open_layer(DIGEST)
    real = os.lstat
    calls: list[object] = []

    def counting(path: object) -> os.stat_result:
        calls.append(path)
        return real(path)  # type: ignore[arg-type]  # whatever the caller says

    monkeypatch.setattr(os, "lstat", counting)
    monkeypatch.setattr(os, "open", None)
    assert storage.open_layer(DIGEST) is first or storage.open_layer(DIGEST) == first
    assert len(calls) <= 2


def test_discarding_takes_the_layer_away_at_once_and_the_files_later(
    storage: ImageStorage, store: Path
) -> None:
    publish(storage, CONTENT)
    assert storage.discard_layer(DIGEST)
    assert storage.open_layer(DIGEST) is None
    assert not record_path(storage).exists()
    assert storage.has_layer(DIGEST)
    [aside] = leftovers(store)
    assert aside.endswith(".removing")
    assert not storage.discard_layer(DIGEST)
    assert storage.sweep().trees == 1
    assert leftovers(store) == []


def test_removing_a_layer_takes_blob_and_tree(storage: ImageStorage) -> None:
    publish(storage, CONTENT)
    assert storage.remove_layer(DIGEST)
    assert not storage.has_layer(DIGEST)
    assert storage.open_layer(DIGEST) is None
    assert not storage.remove_layer(DIGEST)


# Durability (design, section 3)


def test_one_syncfs_makes_all_pending_layers_durable(
    storage: ImageStorage, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerfs import host

    synced: list[int] = []
    real = host.syncfs

    def sync(fd: int) -> None:
        synced.append(fd)
        real(fd)

    monkeypatch.setattr(host, "syncfs", sync)
    contents = [bytes([number]) for number in range(5)]
    for content in contents:
        publish(storage, content)
    assert storage.make_durable() == 5
    assert storage.make_durable() == 0
    assert len(synced) == 1
    for content in contents:
        for opened in (storage, ImageStorage(store)):
            layer = opened.open_layer(Digest.of(content))
            assert layer is not None
            assert layer.record.state == "durable"


def test_a_durable_layer_outlives_a_reboot_and_a_pending_one_does_not(
    storage: ImageStorage, store: Path
) -> None:
    publish(storage, CONTENT)
    storage.make_durable()
    change_record(storage, boot_id="another boot")
    assert ImageStorage(store).open_layer(DIGEST) is not None
    change_record(storage, state="pending")
    assert ImageStorage(store).open_layer(DIGEST) is None


def test_a_layer_that_was_met_pending_becomes_durable_too(storage: ImageStorage, store: Path) -> None:
    publish(storage, CONTENT)
    other = ImageStorage(store)
    assert other.make_durable() == 0
    other.open_layer(DIGEST)
    assert other.make_durable() == 1


def test_a_syncfs_that_is_not_allowed_leaves_everything_pending(
    storage: ImageStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerfs import host

    publish(storage, CONTENT)

    def fail(fd: int) -> None:
        raise OSError(EPERM, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(host, "syncfs", fail)
        with pytest.raises(StoreError, match="syncfs"):
            storage.make_durable()
    layer = storage.open_layer(DIGEST)
    assert layer is not None
    assert layer.record.state == "pending"
    assert storage.make_durable() == 1


def test_a_layer_published_anew_during_the_syncfs_is_not_called_durable(
    storage: ImageStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layerfs import host

    publish(storage, CONTENT)

    def sync_late(fd: int) -> None:
        storage.discard_layer(DIGEST)
        publish(storage, CONTENT)

    with monkeypatch.context() as patched:
        patched.setattr(host, "syncfs", sync_late)
        assert storage.make_durable() == 0
    layer = storage.open_layer(DIGEST)
    assert layer is not None
    assert layer.record.state == "pending"
    assert storage.make_durable() == 1


def test_the_last_use_is_the_mtime_of_the_record(storage: ImageStorage, store: Path) -> None:
    publish(storage, CONTENT)
    os.utime(record_path(storage), (0, 0))
    ImageStorage(store).open_layer(DIGEST)
    assert time.time() - record_path(storage).stat().st_mtime < 60


def test_a_cover_needs_its_layers(storage: ImageStorage) -> None:
    with pytest.raises(NotInStore, match=str(DIGEST)):
        storage.publish_cover([DIGEST])
