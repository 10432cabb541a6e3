"""What can be read through the edge is what the nodes say, and nothing can be changed."""

import errno
import os
import stat
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fuse.conftest import Edge, edge_at, wait_until
from tests.support import mounts
from tests.support.memory_tree import BIG_BYTES, MANY

pytestmark = [pytest.mark.needs_fuse]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("hello", b"hello\n", id="small, from memory"),
        pytest.param("link", b"hello\n", id="through a link"),
        pytest.param("empty", b"", id="empty"),
        pytest.param("large-text", bytes(range(256)) * 1024, id="from memory, too large to store"),
    ],
)
def test_the_bytes_are_those_of_the_node(shared_edge: Edge, name: str, content: bytes) -> None:
    assert (shared_edge.root / "plain" / name).read_bytes() == content


@pytest.mark.parametrize("name", ["big", "small"])
def test_a_file_on_disk_is_read_whole_and_in_parts(shared_edge: Edge, name: str) -> None:
    path = shared_edge.root / "plain" / name
    expected = (shared_edge.control / "scratch" / name).read_bytes()
    assert path.read_bytes() == expected
    with path.open("rb") as file:
        for offset, size in [(0, 1), (4095, 2), (len(expected) - 3, 100), (len(expected), 10), (1 << 40, 5)]:
            assert os.pread(file.fileno(), size, offset) == expected[offset : offset + size]


def test_bytes_that_left_the_page_cache_are_read_again(edge: Edge) -> None:
    path = edge.root / "plain" / "small"
    expected = (edge.control / "scratch" / "small").read_bytes()
    assert path.read_bytes() == expected
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with edge.requests.during() as asked:
            assert file.read() == expected
    assert asked["read"] >= 1
    with edge.requests.during() as asked:
        assert path.read_bytes() == expected
    assert "read" not in asked


def test_bytes_that_left_the_memory_are_read_from_the_disk(edge: Edge) -> None:
    for name in ("small", "big"):
        with (edge.control / "scratch" / name).open("rb") as backing:
            os.fsync(backing.fileno())
            os.posix_fadvise(backing.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert (edge.root / "plain" / name).read_bytes() == (edge.control / "scratch" / name).read_bytes()


@pytest.mark.needs_root
def test_files_in_a_memory_filesystem_are_read_and_stored_too(tmp_path: Path) -> None:
    with mounts.tmpfs(tmp_path / "memory") as memory:
        (memory / "small").write_bytes(b"small\n")
        (memory / "big").write_bytes(os.urandom(300_000))
        with edge_at(tmp_path / "edge", "--directory", str(memory)) as edge:
            with edge.requests.during() as asked:
                assert (edge.root / "small").read_bytes() == b"small\n"
            assert "read" not in asked
            assert (edge.root / "big").read_bytes() == (memory / "big").read_bytes()


def test_twenty_readers_at_once_read_the_same(edge: Edge) -> None:
    expected = (edge.control / "scratch" / "big").read_bytes()
    with ThreadPoolExecutor(20) as pool:
        for got in pool.map(lambda _: (edge.root / "plain" / "big").read_bytes(), range(20)):
            assert got == expected
    wait_until(lambda: edge.stats()["files"] == 0)


def test_a_small_file_needs_no_read_request(edge: Edge) -> None:
    with edge.requests.during() as asked:
        assert (edge.root / "plain" / "hello").read_bytes() == b"hello\n"
        assert len((edge.root / "plain" / "small").read_bytes()) == 5000
    assert "read" not in asked


def test_a_file_that_changes_is_read_anew_each_time(shared_edge: Edge) -> None:
    wait_until(lambda: shared_edge.stats()["files"] == 0)
    first, second = shared_edge.stats(), shared_edge.stats()
    (shared_edge.root / "many" / "file-00007").read_bytes()
    assert first["files"] == second["files"] == 0
    assert shared_edge.stats()["inodes"] > first["inodes"]


def test_a_file_that_is_gone_is_told_at_open(shared_edge: Edge) -> None:
    with pytest.raises(FileNotFoundError):
        os.open(shared_edge.root / "plain" / "gone", os.O_RDONLY)


def test_attributes_are_those_of_the_node_to_the_nanosecond(shared_edge: Edge) -> None:
    st = (shared_edge.root / "plain" / "big").lstat()
    assert st.st_mode == stat.S_IFREG | 0o644
    assert (st.st_size, st.st_blocks) == (BIG_BYTES, (BIG_BYTES + 511) // 512)
    assert (st.st_mtime_ns, st.st_ctime_ns) == (1_600_000_000_123_456_789, 1_600_000_000_000_000_002)


def test_a_large_directory_is_listed_completely_in_order_with_its_dots(shared_edge: Edge) -> None:
    listed = subprocess.run(["ls", "-Ua", shared_edge.root / "many"], capture_output=True, check=True).stdout
    names = listed.decode().split()
    assert names == [".", "..", *(f"file-{number:05}" for number in range(MANY))]


def test_entries_of_a_listing_have_the_numbers_that_stat_says(shared_edge: Edge) -> None:
    with os.scandir(shared_edge.root / "many") as found:
        assert all(entry.inode() == entry.stat(follow_symlinks=False).st_ino for entry in found)


def test_a_name_that_is_not_there_is_asked_for_once(edge: Edge) -> None:
    with edge.requests.during() as asked:
        for _ in range(3):
            assert not (edge.root / "plain" / "nothing").exists()
    assert asked["lookup"] == 1


def test_a_name_that_may_come_is_asked_for_each_time(edge: Edge) -> None:
    (edge.root / "changing").stat()
    with edge.requests.during() as asked:
        for _ in range(3):
            assert not (edge.root / "changing" / "nothing").exists()
    assert asked["lookup"] == 3


def test_xattrs_are_listed_and_read(shared_edge: Edge) -> None:
    path = shared_edge.root / "xattrs" / "some"
    assert sorted(os.listxattr(path)) == ["trusted.two", "user.empty", "user.one"]
    assert os.getxattr(path, "user.one") == b"1"
    assert os.getxattr(path, "user.empty") == b""
    assert os.getxattr(path, "trusted.two") == b"\0two"
    assert os.getxattr(shared_edge.root / "xattrs", "trusted.overlay.opaque") == b"y"
    assert os.listxattr(shared_edge.root / "xattrs" / "none") == []


@pytest.mark.parametrize(
    ("name", "number"),
    [
        pytest.param("user.missing", errno.ENODATA, id="missing"),
        pytest.param("security.capability", errno.ENODATA, id="asked by exec"),
        pytest.param("security.selinux", errno.EOPNOTSUPP, id="selinux"),
        pytest.param("system.posix_acl_access", errno.EOPNOTSUPP, id="acl"),
        pytest.param("system.posix_acl_default", errno.EOPNOTSUPP, id="default acl"),
    ],
)
def test_an_xattr_that_is_not_there_is_missing_or_unsupported(
    shared_edge: Edge, name: str, number: int
) -> None:
    for _ in range(2):
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            os.getxattr(shared_edge.root / "xattrs" / "some", name)
        assert caught.value.errno == number


CHANGES: list[tuple[str, Callable[[Path], object]]] = [
    ("create", lambda root: (root / "plain" / "new").write_text("")),
    ("write", lambda root: os.open(root / "plain" / "hello", os.O_WRONLY)),
    ("truncate", lambda root: os.truncate(root / "plain" / "hello", 0)),
    ("unlink", lambda root: (root / "plain" / "hello").unlink()),
    ("mkdir", lambda root: (root / "plain" / "new").mkdir()),
    ("rmdir", lambda root: (root / "many").rmdir()),
    ("rename", lambda root: (root / "many").rename(root / "more")),
    ("link", lambda root: os.link(root / "plain" / "hello", root / "plain" / "new")),
    ("symlink", lambda root: os.symlink("x", root / "plain" / "new")),
    ("chmod", lambda root: (root / "plain" / "hello").chmod(0)),
    ("chown", lambda root: os.chown(root / "plain" / "hello", 1, 1)),
    ("utime", lambda root: os.utime(root / "plain" / "hello", (0, 0))),
    ("mknod", lambda root: os.mknod(root / "plain" / "new")),
    ("setxattr", lambda root: os.setxattr(root / "plain" / "hello", "user.a", b"")),
    ("removexattr", lambda root: os.removexattr(root / "xattrs" / "some", "user.one")),
]


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in CHANGES])
def test_every_change_is_refused_as_read_only(shared_edge: Edge, change: Callable[[Path], object]) -> None:
    with pytest.raises(OSError, match="Read-only") as caught:
        change(shared_edge.root)
    assert caught.value.errno == errno.EROFS


def test_statfs_tells_the_disk_below_and_nothing_free(shared_edge: Edge) -> None:
    st, below = os.statvfs(shared_edge.root), os.statvfs(shared_edge.control)
    assert (st.f_frsize, st.f_blocks, st.f_bavail, st.f_namemax) == (below.f_frsize, below.f_blocks, 0, 255)


def test_the_mount_is_read_only_nosuid_nodev_and_named(shared_edge: Edge) -> None:
    shown = subprocess.run(
        ["findmnt", "-no", "FSTYPE,SOURCE,OPTIONS", shared_edge.root],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert shown[:2] == ["fuse.layerfs", "layerfs"]
    assert {"ro", "nosuid", "nodev", "default_permissions"} <= set(shown[2].split(","))
    assert "allow_other" not in shown[2]


def test_the_read_ahead_is_raised(shared_edge: Edge) -> None:
    device = shared_edge.root.stat().st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    wait_until(lambda: setting.read_text().strip() == "1024")  # after the first answer of the mount
