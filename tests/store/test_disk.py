import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import StoreDamaged, StoreError
from layerfs.store import ImageStorage
from layerfs.store.disk import read_small, write_all, write_durably


@given(content=st.binary(max_size=200), at_once=st.integers(1, 50))
def test_short_writes_are_looped(content: bytes, at_once: int) -> None:
    reader, writer = os.pipe()
    real = os.write
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "write", lambda fd, data: real(fd, data[:at_once]))
            write_all(writer, content)
        assert os.read(reader, 1000) == content if content else True
    finally:
        os.close(reader)
        os.close(writer)


def test_a_file_that_takes_nothing_is_an_error_not_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda fd, data: 0)
    with pytest.raises(OSError, match="no more bytes"):
        write_all(1, b"x")


def test_a_failed_write_leaves_neither_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_durably(tmp_path / "temporary", tmp_path / "final", b"x")
    assert os.listdir(tmp_path) == []


def test_the_limit_of_a_small_file_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_small(path, 10) == b"x" * 10
    with pytest.raises(StoreDamaged, match="longer than 9 bytes"):
        read_small(path, 9)
    assert read_small(tmp_path / "nothing", 1) is None


def test_paths_that_json_cannot_carry_are_refused(tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    with pytest.raises(StoreError, match="not UTF-8"):
        ImageStorage(odd)
    assert os.listdir(tmp_path) == []
