"""A file is read up to a limit, wherever its bytes come from."""

import errno
import os
from pathlib import Path

import pytest

from layerfs.host.files import read_believed


def test_the_limit_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_believed(path, 10) == b"x" * 10
    with pytest.raises(OSError, match="longer than 9 bytes") as caught:
        read_believed(path, 9)
    assert caught.value.errno == errno.EFBIG


def test_a_file_that_never_ends_is_left_at_the_limit() -> None:
    with pytest.raises(OSError, match="longer than 3000000 bytes"):
        read_believed("/dev/zero", 3_000_000)


def test_what_comes_in_pieces_is_read_to_its_end() -> None:
    """As through ``--authfile <(...)``."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        for number in range(3):
            os.write(writer, b"%d" % number)
        os._exit(0)
    os.close(writer)
    assert read_believed(f"/dev/fd/{reader}", 100) == b"012"
    os.close(reader)
    os.waitpid(pid, 0)


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_believed(tmp_path / "nothing", 1)
    with pytest.raises(IsADirectoryError):
        read_believed(tmp_path, 1)
