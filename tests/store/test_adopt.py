"""Files of this machine as blobs: shared where that is safe, verified like a download, never written to."""

import os
from pathlib import Path

import pytest

from layerfs.errors import DigestMismatch
from layerfs.oci import Digest
from layerfs.store import ImageStorage
from layerfs.store.adopt import adopt

CONTENT = os.urandom(100_000)
DIGEST = Digest.of(CONTENT)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def test_the_bytes_are_shared_and_verified(tmp_path: Path, source: Path) -> None:
    storage = ImageStorage(tmp_path / "store")
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        assert adopt(staged, source, len(CONTENT))
        blob = staged.commit()
    assert blob.path.read_bytes() == CONTENT
    assert os.listdir(storage.layer_dir) == [blob.path.name]
    assert storage.discard_blob(DIGEST)
    assert source.read_bytes() == CONTENT


def test_other_bytes_of_the_right_size_are_refused_and_the_file_stays(tmp_path: Path, source: Path) -> None:
    storage = ImageStorage(tmp_path / "store")
    wrong = Digest.of(b"something else")
    staged = storage.stage_layer_download(wrong, len(CONTENT))
    assert adopt(staged, source, len(CONTENT))
    with pytest.raises(DigestMismatch):
        staged.commit()
    assert os.listdir(storage.layer_dir) == []
    assert source.read_bytes() == CONTENT


def test_a_link_that_was_given_up_is_not_resumed_by_writing_into_it(tmp_path: Path, source: Path) -> None:
    storage = ImageStorage(tmp_path / "store")
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        adopt(staged, source, len(CONTENT))
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as again:
        if again.offset == 0:
            again.write(b"x")
    assert source.read_bytes() == CONTENT


@pytest.mark.parametrize("case", ["another size", "a directory", "a FIFO", "gone", "a part is here already"])
def test_what_cannot_be_shared_is_left_to_be_written(tmp_path: Path, source: Path, case: str) -> None:
    storage = ImageStorage(tmp_path / "store")
    size = len(CONTENT)
    if case == "a directory":
        source.unlink()
        source.mkdir()
    elif case == "a FIFO":
        source.unlink()
        os.mkfifo(source)
    elif case == "gone":
        source.unlink()
    elif case == "another size":
        size += 1
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        if case == "a part is here already":
            staged.write(CONTENT[:10])
        offset = staged.offset
        assert not adopt(staged, source, size)
        assert staged.offset == offset
        staged.write(CONTENT[offset:])
        assert staged.commit().path.read_bytes() == CONTENT


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_may_write_is_never_linked(tmp_path: Path, source: Path, mode: int) -> None:
    storage = ImageStorage(tmp_path / "store")
    source.chmod(mode)
    with storage.stage_layer_download(DIGEST, len(CONTENT)) as staged:
        if adopt(staged, source, len(CONTENT)):  # reflinks are copies to everybody but the disk
            staged.commit()
        assert source.stat().st_nlink == 1
