"""A canary sees every kind of change, and nothing where there is none."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import canary


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "d").mkdir(parents=True)
    (root / "d" / "file").write_bytes(b"content")
    (root / "link").symlink_to("d/file")
    (root / "hard").hardlink_to(root / "d" / "file")
    return root


def test_a_copy_is_the_same(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "copy", symlinks=True)
    os.unlink(tmp_path / "copy/hard")
    os.link(tmp_path / "copy/d/file", tmp_path / "copy/hard")

    canary.assert_same(canary.snapshot(tree), canary.snapshot(tmp_path / "copy"), ignore={"mtime_ns"})


def _replace_by_directory(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").mkdir()


def _rewrite(root: Path) -> None:
    times = (root / "d/file").stat()
    (root / "d/file").write_bytes(b"CONTENT")
    os.utime(root / "d/file", ns=(times.st_atime_ns, times.st_mtime_ns))


def _unlink_and_copy(root: Path) -> None:
    (root / "hard").unlink()
    shutil.copy2(root / "d/file", root / "hard")


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        pytest.param(lambda root: os.chmod(root / "d", 0o700), "d: mode", id="mode"),
        pytest.param(lambda root: os.utime(root / "d/file", ns=(0, 1)), "d/file: mtime_ns", id="mtime"),
        pytest.param(_rewrite, "d/file: content", id="content of the same size and time"),
        pytest.param(lambda root: os.unlink(root / "hard"), "hard: missing", id="missing"),
        pytest.param(lambda root: (root / "new").touch(), "new: unexpected", id="unexpected"),
        pytest.param(_replace_by_directory, "link: kind", id="another type"),
        pytest.param(lambda root: os.chown(root / "d", 5, 6), "d: owner", id="owner",
                     marks=pytest.mark.needs_root),
        pytest.param(lambda root: os.setxattr(root / "d/file", "user.a", b"b"), "d/file: xattrs", id="xattr"),
        pytest.param(_unlink_and_copy, "hard: links", id="a link that became a copy"),
    ],
)  # fmt: skip
def test_a_change_is_named(tree: Path, change: Callable[[Path], object], seen: str) -> None:
    before = canary.snapshot(tree)

    change(tree)

    assert any(line.startswith(seen) for line in canary.differences(before, canary.snapshot(tree)))
