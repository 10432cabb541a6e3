import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from layerfs.store.removal import remove_tree


def _deep(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    for _ in range(700):  # beyond PATH_MAX
        os.mkdir("deeper", dir_fd=fd)
        below = os.open("deeper", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def _closed(path: Path) -> None:
    for name in ("a", "a/b", "a/b/c", "x"):
        (path / name).mkdir()
        (path / name / "file").write_bytes(b"")
    for name in ("a/b/c", "a/b", "a", "x"):
        (path / name).chmod(0)
    path.chmod(0o111)


def _links(path: Path) -> None:
    (path / "outside").symlink_to(path.parent / "keep")
    (path / "up").symlink_to("..")
    (path / "loop").symlink_to("loop")
    (path / "d").mkdir()
    (path / "d/outside").symlink_to(path.parent / "keep")


def _odd_names(path: Path) -> None:
    for name in (b"\xff\xfe", b" ", b"-rf", b"new\nline", b".moved-1", b"n" * 255):
        os.mkdir(os.path.join(os.fsencode(path), name))
        os.close(os.open(os.path.join(os.fsencode(path), name, name), os.O_CREAT | os.O_WRONLY))


def _other_types(path: Path) -> None:
    os.mkfifo(path / "fifo")
    os.mknod(path / "whiteout", stat.S_IFCHR, os.makedev(0, 0))
    (path / "read-only").write_bytes(b"")
    (path / "read-only").chmod(0o400)
    os.link(path / "read-only", path / "second name")


SHAPES = [_deep, _closed, _links, _odd_names, _other_types]


@pytest.mark.parametrize("shape", SHAPES)
def test_any_tree_is_removed_and_nothing_else(tmp_path: Path, shape: Callable[[Path], None]) -> None:
    _remove_in(tmp_path, shape)


@pytest.mark.needs_root
@pytest.mark.parametrize("shape", SHAPES)
def test_an_ordinary_user_can_do_it_too(tmp_path: Path, shape: Callable[[Path], None]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 1234, 1234)
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(home)  # pytest's own directories above are private to root
            os.setgroups([])
            os.setgid(1234)
            os.setuid(1234)
            _remove_in(Path(), shape)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.listdir(home) == ["keep"]


def _remove_in(base: Path, shape: Callable[[Path], None]) -> None:
    (base / "keep").mkdir()
    (base / "keep/file").write_bytes(b"kept")
    tree = base / "tree"
    tree.mkdir()
    shape(tree)
    remove_tree(tree)
    assert not os.path.lexists(tree)
    assert (base / "keep/file").read_bytes() == b"kept"


def test_what_is_not_there_is_removed_already(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")


def test_a_file_or_link_in_place_of_the_tree_is_removed_itself(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "link").symlink_to("keep")
    (tmp_path / "file").write_bytes(b"")
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "file")
    assert os.listdir(tmp_path) == ["keep"]


@pytest.mark.needs_root
def test_a_mounted_filesystem_is_not_emptied(tmp_path: Path) -> None:
    mounted = tmp_path / "tree/a/b"
    mounted.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", mounted], check=True)
    try:
        (mounted / "file").write_bytes(b"kept")
        with pytest.raises(OSError, match=r"busy|another filesystem"):
            remove_tree(tmp_path / "tree")
        for directory, names, _ in os.walk(tmp_path / "tree"):
            assert "file" not in names or directory
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        now = next(point for point in points if point.startswith(str(tmp_path)))
        assert (Path(now) / "file").read_bytes() == b"kept"
    finally:
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in points:
            if point.startswith(str(tmp_path)):
                subprocess.run(["umount", point], check=True)
