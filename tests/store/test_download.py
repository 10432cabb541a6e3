import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from layerfs.errors import (
    DigestMismatch,
    LayerfsError,
    SizeMismatch,
    StoreDamaged,
    StoreFull,
    Unreachable,
)
from layerfs.oci import Digest
from layerfs.store import ImageStorage, StagedDownload, VerifiedBlob
from tests.store.helpers import at_once, blob_of, child, download, leftovers

CONTENT, DIGEST = blob_of(b"the bytes of a layer " * 1000)


@pytest.mark.parametrize("expected_size", [len(CONTENT), 0, -1], ids=["known", "zero", "negative"])
def test_the_right_bytes_are_published(storage: ImageStorage, expected_size: int) -> None:
    staged = storage.stage_layer_download(str(DIGEST), expected_size)
    assert staged.final_path == storage.layer_tarball_path(DIGEST)
    assert staged.staged_path.parent == staged.final_path.parent
    assert staged.file.write(CONTENT[:7]) == 7
    staged.write(CONTENT[7:])
    assert not storage.has_layer(DIGEST)
    blob = staged.commit()
    assert (blob.digest, blob.path, blob.size) == (DIGEST, staged.final_path, len(CONTENT))
    assert blob.path.read_bytes() == CONTENT
    assert storage.has_layer(DIGEST)
    assert storage.verify_layer(DIGEST)
    assert storage.open_blob(DIGEST) == blob
    assert leftovers(storage.images_dir) == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("compression", ["layer", "config"])
def test_both_algorithms_are_checked(storage: ImageStorage, algorithm: str, compression: str) -> None:
    digest = Digest.of(CONTENT, algorithm)
    stage = {"layer": storage.stage_layer_download, "config": storage.stage_config_download}[compression]
    with stage(digest) as staged:
        staged.write(CONTENT)
        assert staged.commit().digest == digest
    with stage(digest) as staged:
        staged.write(CONTENT[::-1])
        with pytest.raises(DigestMismatch):
            staged.commit()


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        pytest.param(CONTENT[:-1], SizeMismatch, id="truncated"),
        pytest.param(b"", SizeMismatch, id="nothing at all"),
        pytest.param(CONTENT + b"x", SizeMismatch, id="one byte too many"),
        pytest.param(CONTENT[:-1] + b"x", DigestMismatch, id="same size, other bytes"),
        pytest.param(bytes(len(CONTENT)), DigestMismatch, id="zeros"),
    ],
)
def test_wrong_bytes_are_refused_and_removed(
    storage: ImageStorage, sent: bytes, error: type[LayerfsError]
) -> None:
    def receive() -> None:
        with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
            staged.write(sent)
            staged.commit()

    with pytest.raises(error):
        receive()
    assert os.listdir(storage.layer_dir) == []


def test_a_stream_fails_at_its_first_excess_byte(storage: ImageStorage) -> None:
    staged = storage.stage_layer_download(DIGEST, len(CONTENT))
    staged.write(CONTENT)
    with pytest.raises(SizeMismatch, match=rf"expected {len(CONTENT)}"):
        staged.write(b"x")
    assert staged.staged_path.stat().st_size == len(CONTENT)
    staged.abort()


def test_wrong_bytes_of_unknown_size_are_refused_without_a_context(storage: ImageStorage) -> None:
    staged = storage.stage_layer_download(DIGEST, -1)
    staged.write(b"x")
    with pytest.raises(DigestMismatch):
        staged.commit()
    assert os.listdir(storage.layer_dir) == []


def test_a_vanished_staged_file_is_an_error(storage: ImageStorage) -> None:
    staged = storage.stage_layer_download(DIGEST, len(CONTENT))
    staged.write(CONTENT)
    staged.staged_path.unlink()
    with pytest.raises(StoreDamaged, match="vanished"):
        staged.commit()
    assert not storage.has_layer(DIGEST)


def test_a_replaced_staged_file_is_an_error(storage: ImageStorage) -> None:
    staged = storage.stage_layer_download(DIGEST, len(CONTENT))
    staged.write(CONTENT)
    staged.staged_path.unlink()
    staged.staged_path.write_bytes(bytes(len(CONTENT)))
    with pytest.raises(StoreDamaged, match="vanished"):
        staged.commit()
    assert not storage.has_layer(DIGEST)


class Cancelled(BaseException):
    """As trio's."""


@pytest.mark.parametrize(
    ("exc", "kept"),
    [
        pytest.param(None, True, id="nothing wrong"),
        pytest.param(Unreachable("no route"), True, id="network"),
        pytest.param(Cancelled(), True, id="cancelled"),
        pytest.param(KeyboardInterrupt(), True, id="interrupted"),
        pytest.param(RuntimeError("a bug"), True, id="crash of the caller"),
        pytest.param(SizeMismatch("too long"), False, id="size"),
        pytest.param(DigestMismatch("no"), False, id="digest"),
        pytest.param(StoreFull("disk"), False, id="full disk"),
    ],
)
def test_leaving_without_commit_suspends_unless_the_bytes_are_wrong(
    storage: ImageStorage, exc: BaseException | None, kept: bool
) -> None:
    def leave() -> None:
        with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
            staged.write(CONTENT[:100])
            if exc is not None:
                raise exc

    if exc is None:
        leave()
    else:
        with pytest.raises(type(exc)):
            leave()
    assert len(leftovers(storage.images_dir)) == kept
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        assert staged.offset == (100 if kept else 0)


def test_a_suspended_download_goes_on_after_a_restart(storage: ImageStorage, store: Path) -> None:
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        staged.write(CONTENT[:5000])
    again = ImageStorage(store)
    with again.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        assert staged.offset == 5000
        staged.write(CONTENT[5000:9000])
        assert staged.offset == 9000
    with again.stage_layer_download(DIGEST, -1) as staged:
        assert staged.offset == 9000
        staged.write(CONTENT[9000:])
        staged.commit()
    assert again.verify_layer(DIGEST)
    assert leftovers(store) == []


def test_a_complete_suspended_download_needs_no_more_bytes(storage: ImageStorage) -> None:
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        staged.write(CONTENT)
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        assert staged.offset == len(CONTENT)
        staged.commit()
    assert storage.verify_layer(DIGEST)


def test_the_largest_suspended_download_that_nobody_holds_is_taken_up(storage: ImageStorage) -> None:
    held = [storage.stage_layer_download(DIGEST, len(CONTENT)) for _ in range(4)]
    for size, staged in zip((10, 400, 300, 20), held, strict=True):
        staged.write(CONTENT[:size])
    for staged in held[2:]:
        staged.suspend()
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        assert staged.offset == 300
        with storage.stage_layer_download(DIGEST, len(CONTENT)) as next_best:
            assert next_best.offset == 20
            with storage.stage_layer_download(DIGEST, len(CONTENT)) as fresh:
                assert fresh.offset == 0
    for staged in held[:2]:
        staged.abort()


def test_another_digest_is_never_taken_up(storage: ImageStorage) -> None:
    with storage.stage_layer_download(DIGEST, -1) as staged:
        staged.write(CONTENT[:100])
    with storage.stage_layer_download(Digest.of(b"other"), -1) as staged:
        assert staged.offset == 0


def test_a_download_of_a_living_process_is_left_alone_and_of_a_killed_one_taken_up(store: Path) -> None:
    storage = ImageStorage(store)

    def begin() -> None:
        # Kept by a reference that lives as long as the process.
        begin.staged = ImageStorage(store).stage_layer_download(DIGEST, -1)  # type: ignore[attr-defined]  # see above
        begin.staged.write(CONTENT[:50])  # type: ignore[attr-defined]  # see above

    with child(begin), storage.stage_layer_download(DIGEST, -1) as staged:
        assert staged.offset == 0
    with storage.stage_layer_download(DIGEST, -1) as staged:
        assert staged.offset == 50


def test_damaged_suspended_bytes_are_found_by_the_digest(storage: ImageStorage) -> None:
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        staged.write(CONTENT[:100])
    path = staged.staged_path
    path.write_bytes(bytes(100))
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        staged.write(CONTENT[100:])
        with pytest.raises(DigestMismatch):
            staged.commit()
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        assert staged.offset == 0


def _too_long(path: Path) -> None:
    path.write_bytes(CONTENT + b"x")


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.mkdir()


def _second_name_of_a_blob(path: Path) -> None:
    blob = path.with_name("blob")
    blob.write_bytes(CONTENT[:10])
    os.link(blob, path)


@pytest.mark.parametrize("plant", [_too_long, _link, _fifo, _directory, _second_name_of_a_blob])
def test_a_staged_name_that_is_no_partial_download_is_not_taken_up(
    storage: ImageStorage, plant: Callable[[Path], None]
) -> None:
    plant(storage.layer_dir / f"{DIGEST.name}.{'0' * 32}.downloading")
    assert download(storage, CONTENT).size == len(CONTENT)
    assert Path("/etc/passwd").stat().st_size != len(CONTENT)


def test_losing_a_race_to_the_final_name_is_success(storage: ImageStorage) -> None:
    first, second = (storage.stage_layer_download(DIGEST, len(CONTENT)) for _ in range(2))
    first.write(CONTENT)
    second.write(CONTENT)
    assert first.commit() == second.commit()
    assert storage.verify_layer(DIGEST)
    assert leftovers(storage.images_dir) == []


def test_a_damaged_blob_is_replaced_by_a_new_download(storage: ImageStorage) -> None:
    path = download(storage, CONTENT).path
    path.write_bytes(b"damaged")
    download(storage, CONTENT)
    assert storage.verify_layer(DIGEST)


def test_the_staged_name_lives_until_the_context_ends(storage: ImageStorage) -> None:
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        staged.write(CONTENT)
        staged.commit()
        assert staged.staged_path.read_bytes() == CONTENT
        assert storage.has_layer(DIGEST)
    assert leftovers(storage.images_dir) == []


def test_endings_are_harmless_when_repeated(storage: ImageStorage) -> None:
    staged = storage.stage_layer_download(DIGEST, -1)
    staged.write(CONTENT)
    staged.commit()
    staged.abort()
    staged.suspend()
    staged.abort()
    assert storage.verify_layer(DIGEST)


def test_a_committed_blob_is_a_plain_file_of_the_owner(storage: ImageStorage) -> None:
    path = download(storage, CONTENT).path
    status = path.lstat()
    assert stat.S_ISREG(status.st_mode)
    assert status.st_uid == os.geteuid()
    assert stat.S_IMODE(status.st_mode) & 0o022 == 0


def test_a_verified_blob_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError):
        VerifiedBlob(DIGEST, Path("/etc/passwd"), 1)  # type: ignore[call-arg]  # that is the point
    with pytest.raises(TypeError):
        VerifiedBlob(DIGEST, Path("/etc/passwd"), 1, object())


def test_many_threads_download_the_same_blob(storage: ImageStorage) -> None:
    at_once(8, lambda _: [download(storage, CONTENT) for _ in range(10)])
    assert storage.verify_layer(DIGEST)
    assert leftovers(storage.images_dir) == []


def test_existence_of_several_blobs(storage: ImageStorage) -> None:
    download(storage, CONTENT)
    other = Digest.of(b"other")
    assert storage.verify_blobs_exist([])
    assert storage.verify_blobs_exist([DIGEST, str(DIGEST)])
    assert not storage.verify_blobs_exist([DIGEST, other])
    download(storage, b"other")
    assert storage.verify_blobs_exist([DIGEST, other])


# Bytes that another process writes and hashes


def fill(download: StagedDownload, content: bytes) -> None:
    """Write as a downloader does: to the descriptor, at its place."""
    file, _ = download.descriptors
    os.pwrite(file, content, download.offset)
    download.grown(download.offset + len(content))


def test_what_others_wrote_is_hashed_before_it_is_committed(storage: ImageStorage) -> None:
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        staged.write(CONTENT[:10])
        fill(staged, CONTENT[10:7000])
        staged.write(CONTENT[7000:7010])
        fill(staged, CONTENT[7010:])
        assert staged.offset == len(CONTENT)
        assert staged.commit().path.read_bytes() == CONTENT


def test_hashing_can_be_ended_between_two_pieces_and_loses_nothing(storage: ImageStorage) -> None:
    content = bytes(9 << 20)
    digest = Digest.of(content)
    pieces = []

    def between() -> None:
        pieces.append(1)
        if len(pieces) == 2:
            raise KeyboardInterrupt

    with storage.stage_layer_download(digest, len(content)) as staged:
        fill(staged, content)
        with pytest.raises(KeyboardInterrupt):
            staged.commit(between)
    assert len(pieces) == 2
    assert not storage.has_layer(digest)
    with storage.stage_layer_download(digest, len(content)) as staged:
        assert staged.offset == len(content)
        assert staged.commit().size == len(content)


def test_what_others_hashed_is_not_read_again(storage: ImageStorage) -> None:
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        fill(staged, CONTENT)
        staged.sync()
        blob = staged.commit_as(DIGEST, len(CONTENT))
        assert staged.file.bytes_written == len(CONTENT), "it was not hashed, and is now that it is asked for"
    assert storage.open_blob(DIGEST) == blob
    assert leftovers(storage.images_dir) == []


@pytest.mark.parametrize(
    ("found", "size", "error"),
    [
        pytest.param(Digest.of(b"other"), len(CONTENT), DigestMismatch, id="other bytes"),
        pytest.param(DIGEST, len(CONTENT) - 1, SizeMismatch, id="fewer"),
        pytest.param(DIGEST, len(CONTENT) + 1, SizeMismatch, id="more"),
    ],
)
def test_what_others_found_is_judged(
    storage: ImageStorage, found: Digest, size: int, error: type[LayerfsError]
) -> None:
    staged = storage.stage_layer_download(DIGEST, len(CONTENT))
    fill(staged, CONTENT)
    with pytest.raises(error):
        staged.commit_as(found, size)
    assert os.listdir(storage.layer_dir) == []


def test_a_file_that_changed_after_others_read_it_is_not_committed(storage: ImageStorage) -> None:
    staged = storage.stage_layer_download(DIGEST, len(CONTENT))
    fill(staged, CONTENT)
    os.ftruncate(staged.descriptors[0], 100)
    with pytest.raises(SizeMismatch):
        staged.commit_as(DIGEST, len(CONTENT))
    assert os.listdir(storage.layer_dir) == []


def test_a_staged_file_that_lost_bytes_is_an_error(storage: ImageStorage) -> None:
    staged = storage.stage_layer_download(DIGEST, len(CONTENT))
    fill(staged, CONTENT)
    os.ftruncate(staged.descriptors[0], 100)
    with pytest.raises(StoreDamaged, match="ends early"):
        staged.commit()
    assert os.listdir(storage.layer_dir) == []
