"""A name that is listed twice: the last one counts, whatever the two are."""

import itertools
import os
import stat
from typing import Any

import pytest

from tests.extract.extracting import Extract
from tests.support.images import Entry, chardev, directory, fifo, file, hardlink, symlink

pytestmark = pytest.mark.needs_root

_KINDS: dict[str, Entry] = {
    "file": file("x", b"content", mode=0o640, uid=1, xattrs={"user.file": b"1"}),
    "directory": directory("x", mode=0o751, uid=2, mtime=2, xattrs={"user.directory": b"1"}),
    "symlink": symlink("x", "elsewhere", uid=3),
    "fifo": fifo("x", mode=0o622, uid=4),
    "device": chardev("x", 1, 3, mode=0o666, uid=5),
    "hard link": hardlink("x", "other"),
}


def _described(tree: Any) -> tuple[Any, ...]:
    found = tree.lstat("x")
    is_link = stat.S_ISLNK(found.st_mode)
    return (
        found.st_mode, found.st_uid, found.st_mtime_ns, found.st_nlink, found.st_rdev, tree.xattrs("x"),
        os.readlink(tree.path / "x") if is_link else None,
    )  # fmt: skip


@pytest.mark.parametrize(("first", "last"), list(itertools.product(_KINDS, _KINDS)))
def test_the_last_entry_counts_also_when_the_type_changes(extract: Extract, first: str, last: str) -> None:
    other = file("other", b"o")

    twice = extract(other, _KINDS[first], _KINDS[last])
    once = extract(other, _KINDS[last])

    assert _described(twice) == _described(once)


def test_a_file_in_place_of_a_directory_removes_all_below_it(extract: Extract) -> None:
    tree = extract(
        file("d/e/f"), symlink("d/l", "/"), fifo("d/p"), directory("d/e/g", mode=0), file("d", b"now a file")
    )

    assert tree.names() == {"d"}
    assert tree.listed("implied") == ("",)


@pytest.mark.parametrize("first", ["file", "directory", "symlink", "fifo", "device", "hard link"])
@pytest.mark.parametrize(
    "skipped",
    [
        pytest.param(chardev("x", 0, 0), id="0:0 device"),
        pytest.param(file("x", pax={"SCHILY.filetype": "socket"}), id="socket"),
        pytest.param(hardlink("x", "skipped"), id="link to a skipped entry"),
    ],
)
def test_a_skipped_entry_leaves_nothing_that_was_called_so_before(
    extract: Extract, first: str, skipped: Entry
) -> None:
    tree = extract(file("other", b"o"), chardev("skipped", 0, 0), _KINDS[first], skipped)

    assert tree.names() == {"other"}
    assert tree.lstat("other").st_nlink == 1


def test_a_skipped_entry_makes_no_directory_for_itself(extract: Extract) -> None:
    assert extract(chardev("a/b/x", 0, 0)).names() == set()


def test_and_a_directory_may_come_back(extract: Extract) -> None:
    tree = extract(file("d/e/f"), file("d"), directory("d", mtime=5), file("d/n"))

    assert tree.names() == {"d", "d/n"}
    assert tree.lstat("d").st_mtime_ns == 5 * 10**9
    assert tree.listed("implied") == ("",)


def test_a_directory_that_is_listed_again_keeps_its_content(extract: Extract) -> None:
    tree = extract(
        directory("d", mode=0o700, xattrs={"user.a": b"1"}), file("d/f"), directory("d", mode=0o755, mtime=9)
    )

    assert tree.names() == {"d", "d/f"}
    assert tree.xattrs("d") == {}
    assert stat.S_IMODE(tree.lstat("d").st_mode) == 0o755
    assert tree.lstat("d").st_mtime_ns == 9 * 10**9


def test_a_file_over_a_symlink_replaces_the_link_and_not_its_target(extract: Extract) -> None:
    tree = extract(file("target", b"old"), symlink("l", "target"), file("l", b"new"))

    assert (tree.path / "target").read_bytes() == b"old"
    assert (tree.path / "l").read_bytes() == b"new"


def test_a_file_over_one_name_of_an_inode_leaves_the_others(extract: Extract) -> None:
    tree = extract(file("a", b"old"), hardlink("b", "a"), file("a", b"new"), hardlink("c", "a"))

    assert (tree.path / "b").read_bytes() == b"old"
    assert (tree.path / "a").read_bytes() == b"new"
    assert tree.lstat("c").st_ino == tree.lstat("a").st_ino
    assert tree.lstat("b").st_nlink == 1


def test_a_directory_over_a_symlink_replaces_it(extract: Extract) -> None:
    tree = extract(directory("real"), symlink("d", "real"), directory("d", mode=0o711), file("d/f"))

    assert tree.names() == {"real", "d", "d/f"}
    assert stat.S_IMODE(tree.lstat("real").st_mode) == 0o755


def test_a_later_entry_counts_over_a_link_that_waits_for_its_target(extract: Extract) -> None:
    tree = extract(hardlink("a", "b"), file("a", b"mine"), file("b", b"other"))

    assert (tree.path / "a").read_bytes() == b"mine"


def test_a_link_that_waits_counts_over_an_earlier_entry(extract: Extract) -> None:
    tree = extract(file("a", b"mine"), hardlink("a", "b"), file("b", b"other"))

    assert (tree.path / "a").read_bytes() == b"other"


def test_the_last_of_two_waiting_links_counts(extract: Extract) -> None:
    tree = extract(hardlink("a", "b"), hardlink("a", "c"), file("b", b"b"), file("c", b"c"))

    assert (tree.path / "a").read_bytes() == b"c"


def test_a_waiting_link_goes_with_its_directory(extract: Extract) -> None:
    tree = extract(hardlink("d/a", "b"), file("d"), directory("d"), file("b"))

    assert tree.names() == {"d", "b"}
