"""A layer comes out as it went in: every kind of member, with all of its metadata."""

import os
import stat
import struct
from typing import Any

import pytest

from layerfs.errors import InvalidArchive, PathEscape
from layerfs.extract.directories import OPEN_MAX
from layerfs.layer.budgets import Budgets
from tests.extract.extracting import Extract
from tests.layer import headers
from tests.layer.headers import END, header, member, padded, pax
from tests.support.images import TIME, Entry, chardev, directory, fifo, file, hardlink, symlink

pytestmark = pytest.mark.needs_root


def _acl(*rows: tuple[int, int, int]) -> bytes:
    """Build a POSIX ACL in the kernel's form: rows of tag, permissions and id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in rows)


_NOBODY = 0xFFFFFFFF
ACL = _acl((1, 6, _NOBODY), (2, 4, 1234), (4, 4, _NOBODY), (16, 6, _NOBODY), (32, 4, _NOBODY))
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)

MANY = OPEN_MAX + 100
"""Directories: some are closed and opened again."""


def test_a_file_has_its_content_and_attributes(extract: Extract) -> None:
    tree = extract(file("f", b"x" * 100_000, mode=0o640, uid=7, gid=8, mtime=1.5))

    found = tree.lstat("f")
    assert (tree.path / "f").read_bytes() == b"x" * 100_000
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 7, 8)
    assert found.st_mtime_ns == 1_500_000_000


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o755, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777])
@pytest.mark.parametrize("owner", [0, 1000])
@pytest.mark.parametrize("make", [file, directory, fifo], ids=["file", "directory", "fifo"])
def test_modes_are_kept_to_the_last_bit(extract: Extract, make: Any, owner: int, mode: int) -> None:
    tree = extract(make("x", mode=mode, uid=owner, gid=owner), *([file("x/f")] if make is directory else []))

    assert stat.S_IMODE(tree.lstat("x").st_mode) == mode
    assert tree.lstat("x").st_uid == owner


def test_owners_go_up_to_the_last_number_that_chown_takes(extract: Extract) -> None:
    tree = extract(archive=header(b"f", uid=2**32 - 2, gid=2**32 - 2) + END)

    assert (tree.lstat("f").st_uid, tree.lstat("f").st_gid) == (2**32 - 2, 2**32 - 2)


@pytest.mark.parametrize("mtime", [b"1700000000.123456789", b"-1.5", b"0", b"-2000000000"])
@pytest.mark.parametrize("type", [b"0", b"5", b"2"])
def test_times_have_nanoseconds_and_may_lie_before_1970(extract: Extract, type: bytes, mtime: bytes) -> None:
    tree = extract(archive=pax((b"mtime", mtime)) + header(b"x", type, link=b"nowhere") + END)

    assert tree.lstat("x").st_mtime_ns == round(float(mtime.partition(b".")[0]) * 10**9) + {
        b"1700000000.123456789": 123_456_789, b"-1.5": -500_000_000,
    }.get(mtime, 0)  # fmt: skip


def test_symlinks_are_kept_as_they_are(extract: Extract) -> None:
    targets = {"a": "/etc/passwd", "b": "../../..", "c": "nowhere\n", "d": "x" * 4000}
    tree = extract(*(symlink(name, target, uid=5, mtime=3) for name, target in targets.items()))

    assert {name: os.readlink(tree.path / name) for name in targets} == targets
    assert {tree.lstat(name).st_uid for name in targets} == {5}
    assert {tree.lstat(name).st_mtime_ns for name in targets} == {3 * 10**9}


def test_devices_and_fifos_are_made(extract: Extract) -> None:
    tree = extract(
        chardev("null", 1, 3, mode=0o666),
        fifo("pipe", uid=3),
        Entry(name="disk", kind=b"4", device=(8, 70000)),
    )

    assert stat.S_ISCHR(tree.lstat("null").st_mode)
    assert tree.lstat("null").st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE(tree.lstat("null").st_mode) == 0o666
    assert stat.S_ISFIFO(tree.lstat("pipe").st_mode)
    assert tree.lstat("pipe").st_uid == 3
    assert stat.S_ISBLK(tree.lstat("disk").st_mode)
    assert tree.lstat("disk").st_rdev == os.makedev(8, 70000)


def test_sockets_and_whiteout_devices_are_skipped_with_what_links_to_them(extract: Extract) -> None:
    tree = extract(
        archive=header(b"socket", mode=0o140755) + header(b"zero", b"3")
        + header(b"again", b"1", link=b"zero") + header(b"f") + END
    )  # fmt: skip

    assert tree.names() == {"f"}
    assert len(tree.warnings) == 3
    assert all("skipped" in warning for warning in tree.warnings)


def test_names_may_have_any_bytes(extract: Extract) -> None:
    names = [bytes([byte]) * 255 for byte in range(1, 256) if byte not in b"/."] + [b"...", b"a b\n\xff"]
    tree = extract(*(file(name, name) for name in names))

    assert set(os.listdir(os.fsencode(tree.path))) == set(names)


def test_paths_may_be_longer_than_one_call_takes(extract: Extract) -> None:
    parts = [b"d" * 200] * 40
    tree = extract(file(b"/".join([*parts, b"f"]), b"deep"))

    fd = os.open(tree.path, os.O_RDONLY)
    for part in parts:
        below = os.open(part, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    assert os.listdir(fd) == ["f"]
    os.close(fd)


def test_xattrs_are_kept_on_files_directories_and_links(extract: Extract) -> None:
    tree = extract(
        file("f", b"x", uid=5, mode=0o4755, xattrs={"user.a": b"1", "security.capability": CAPABILITY}),
        directory("d", xattrs={"user.b": b"", "trusted.c": b"3"}),
        symlink("l", "f", xattrs={"trusted.d": b"4"}),
        fifo("p", xattrs={"trusted.e": b"5"}),
    )

    assert tree.xattrs("f") == {"user.a": b"1", "security.capability": CAPABILITY}
    assert stat.S_IMODE(tree.lstat("f").st_mode) == 0o4755
    assert tree.xattrs("d") == {"user.b": b"", "trusted.c": b"3"}
    assert tree.xattrs("l") == {"trusted.d": b"4"}
    assert tree.xattrs("p") == {"trusted.e": b"5"}


def test_xattrs_for_kernel_policy_and_overlay_never_reach_the_disk(extract: Extract) -> None:
    dropped = {
        "security.selinux": b"x", "security.ima": b"x", "trusted.overlay.opaque": b"y",
        "user.overlay.whiteout": b"y", "user.containers.override_stat": b"0:0:755",
    }  # fmt: skip
    tree = extract(directory("./", xattrs=dropped), directory("d", xattrs=dropped), file("f", xattrs=dropped))

    assert [tree.xattrs(name) for name in (".", "d", "f")] == [{}, {}, {}]


def test_xattrs_that_a_file_cannot_have_are_lost_and_recorded(extract: Extract) -> None:
    tree = extract(symlink("l", "f", xattrs={"user.a": b"1"}))

    assert tree.listed("lost") == ("l\txattr:user.a=MQ==",)


def test_access_lists_are_kept_and_not_inherited_by_what_the_archive_puts_below(extract: Extract) -> None:
    both = {"system.posix_acl_default": ACL, "system.posix_acl_access": ACL.replace(b"\6", b"\7", 1)}
    tree = extract(
        directory("d", mode=0o764, xattrs=both),
        file("d/f", mode=0o600), directory("d/d", mode=0o711), file("d/d/g", mode=0o644),
        file("f", mode=0o664, xattrs={"system.posix_acl_access": ACL}),
    )  # fmt: skip

    assert tree.xattrs("d")["system.posix_acl_default"] == ACL
    assert tree.xattrs("f") == {"system.posix_acl_access": ACL}
    assert [tree.xattrs(name) for name in ("d/f", "d/d", "d/d/g")] == [{}, {}, {}]
    assert [stat.S_IMODE(tree.lstat(name).st_mode) for name in ("d/f", "d/d", "d/d/g")] == [
        0o600, 0o711, 0o644,
    ]  # fmt: skip


def test_the_group_of_a_setgid_directory_is_not_inherited(extract: Extract) -> None:
    wide = [entry for n in range(MANY) for entry in (directory(f"d{n}"), file(f"d{n}/f"))]
    tree = extract(
        directory("s", mode=0o2775, gid=50), file("s/a"), *wide, file("s/b"), directory("s/d", mode=0o700)
    )

    assert stat.S_IMODE(tree.lstat("s").st_mode) == 0o2775
    assert [tree.lstat(name).st_gid for name in ("s", "s/a", "s/b", "s/d")] == [50, 0, 0, 0]
    assert stat.S_IMODE(tree.lstat("s/d").st_mode) == 0o700


def test_directories_keep_their_times_whatever_is_put_into_them_and_when(extract: Extract) -> None:
    wide = [entry for n in range(MANY) for entry in (directory(f"w{n}", mtime=n + 0.5), file(f"w{n}/f"))]
    again = [file(f"w{n}/g") for n in range(MANY)]
    tree = extract(
        directory("./", mtime=1), directory("d", mtime=2), *wide, file("d/f"), *again, file("late/f")
    )

    assert tree.lstat("").st_mtime_ns == 10**9
    assert tree.lstat("d").st_mtime_ns == 2 * 10**9
    assert tree.lstat("late").st_mtime_ns == 0
    assert [tree.lstat(f"w{n}").st_mtime_ns for n in range(MANY)] == [
        n * 10**9 + 500_000_000 for n in range(MANY)
    ]


def test_read_only_directories_may_have_content(extract: Extract) -> None:
    tree = extract(directory("d", mode=0o555), file("d/f"), directory("d/e", mode=0), file("d/e/g"))

    assert tree.names() == {"d", "d/f", "d/e", "d/e/g"}
    assert [stat.S_IMODE(tree.lstat(name).st_mode) for name in ("d", "d/e")] == [0o555, 0]


def test_a_directory_may_be_listed_after_its_content(extract: Extract) -> None:
    tree = extract(file("a/b/f"), directory("a/b", mode=0o700, uid=4, mtime=9))

    found = tree.lstat("a/b")
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_mtime_ns) == (0o700, 4, 9 * 10**9)
    assert tree.listed("implied") == ("", "a")


def test_directories_that_are_not_listed_are_implied(extract: Extract) -> None:
    tree = extract(file("a/b/f", mtime=77))

    assert tree.listed("implied") == ("", "a", "a/b")
    for name in ("", "a", "a/b"):
        found = tree.lstat(name)
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns) == (
            0o755,
            0,
            0,
            0,
        )


@pytest.mark.parametrize("name", ["./", ".", "/"])
def test_the_root_may_be_listed(extract: Extract, name: str) -> None:
    tree = extract(directory(name, mode=0o1711, uid=3, gid=4, mtime=5, xattrs={"user.a": b"b"}), file("f"))

    found = tree.lstat("")
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o1711, 3, 4)
    assert found.st_mtime_ns == 5 * 10**9
    assert tree.xattrs(".") == {"user.a": b"b"}
    assert tree.listed("implied") == ()


@pytest.mark.parametrize("prefix", ["./", "/", ".//", "././"])
def test_prefixes_that_the_field_accepts_mean_nothing(extract: Extract, prefix: str) -> None:
    tree = extract(
        directory(f"{prefix}d"), file(f"{prefix}d/f", b"x"), hardlink(f"{prefix}h", f"{prefix}d/f")
    )

    assert tree.names() == {"d", "d/f", "h"}
    assert tree.lstat("h").st_ino == tree.lstat("d/f").st_ino


def test_a_layer_may_be_empty(extract: Extract) -> None:
    tree = extract(archive=END)

    assert tree.names() == set()
    assert tree.listed("implied") == ("",)
    assert tree.extraction.entries == 0


def test_hard_links_share_an_inode(extract: Extract) -> None:
    tree = extract(
        file("a", b"x"), hardlink("d/b", "a"), hardlink("c", "d/b"), symlink("s", "a"), hardlink("t", "s"),
        fifo("p"), hardlink("q", "p"),
    )  # fmt: skip

    assert tree.lstat("a").st_nlink == 3
    assert len({tree.lstat(name).st_ino for name in ("a", "d/b", "c")}) == 1
    assert stat.S_ISLNK(tree.lstat("t").st_mode)
    assert tree.lstat("t").st_ino == tree.lstat("s").st_ino
    assert tree.lstat("q").st_ino == tree.lstat("p").st_ino


def test_a_hard_link_may_come_before_its_target_also_through_other_links(extract: Extract) -> None:
    tree = extract(
        hardlink("a", "d/b"), hardlink("d/b", "c"), hardlink("e", "z/y"), file("c", b"x"), symlink("z/y", "c")
    )

    assert len({tree.lstat(name).st_ino for name in ("a", "d/b", "c")}) == 1
    assert tree.lstat("c").st_nlink == 3
    assert stat.S_ISLNK(tree.lstat("e").st_mode)
    assert tree.lstat("d").st_mtime_ns == 0


def test_a_hard_link_may_wait_in_a_directory_that_was_closed_meanwhile(extract: Extract) -> None:
    wide = [directory(f"d{n}") for n in range(1, OPEN_MAX)]

    tree = extract(directory("z"), file("d0/f"), *wide, hardlink("d0/l", "z/later"), file("z/later", b"x"))

    assert (tree.path / "d0/l").read_bytes() == b"x"


def test_a_deep_directory_is_replaced_while_as_many_are_open_as_may_be(extract: Extract) -> None:
    deep = [directory("a" + "/a" * depth) for depth in range(Budgets().max_depth - 1)]

    tree = extract(*deep, *(directory(f"d{n}") for n in range(MANY)), file("a", b"x"))

    assert (tree.path / "a").read_bytes() == b"x"


def test_a_hard_link_to_itself_changes_nothing(extract: Extract) -> None:
    tree = extract(file("a", b"x"), hardlink("a", "a"), hardlink("a", "./a"))

    assert (tree.path / "a").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        pytest.param([hardlink("a", "b")], InvalidArchive, id="to nothing"),
        pytest.param([hardlink("a", "a")], InvalidArchive, id="to itself, which is nothing"),
        pytest.param([hardlink("a", "b"), hardlink("b", "a")], InvalidArchive, id="in a circle"),
        pytest.param([directory("d"), hardlink("a", "d")], InvalidArchive, id="to a directory"),
        pytest.param([hardlink("a", "d"), directory("d")], InvalidArchive, id="to a later directory"),
        pytest.param([hardlink("a", "/")], InvalidArchive, id="to the root"),
        pytest.param([hardlink("a", "../b")], PathEscape, id="to the outside"),
        pytest.param([symlink("l", "/etc"), hardlink("a", "l/passwd")], PathEscape, id="through a symlink"),
        pytest.param(
            [hardlink("a", "l/passwd"), symlink("l", "/etc")], PathEscape, id="through a later symlink"
        ),
        pytest.param([symlink("l", "/tmp"), file("l/f")], PathEscape, id="file through a symlink"),
        pytest.param([symlink("l", "."), directory("l/d")], PathEscape, id="directory through a symlink"),
        pytest.param([symlink("l", ".."), symlink("l/s", "x")], PathEscape, id="symlink through a symlink"),
        pytest.param(
            [file("d/e/f"), symlink("d", ".."), file("d/e/g")], PathEscape, id="where a directory was before"
        ),
        pytest.param([file("f"), file("f/g")], InvalidArchive, id="below a file"),
        pytest.param([file("./")], InvalidArchive, id="a file as the root"),
        pytest.param([symlink(".", "x")], InvalidArchive, id="a symlink as the root"),
        pytest.param([symlink("l", "")], InvalidArchive, id="a symlink to nothing"),
        pytest.param([symlink("l", "x" * 5000)], InvalidArchive, id="a symlink that is too long"),
    ],
)
def test_what_cannot_be_made_is_refused(extract: Extract, entries: list[Entry], error: type) -> None:
    with pytest.raises(error):
        extract(*entries)


def test_sparse_files_stay_sparse(extract: Extract) -> None:
    size = 1 << 30
    archive = (
        pax(
            (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"f"),
            (b"GNU.sparse.realsize", b"%d" % size),
        )
        + member(padded(b"2\n4096\n3\n1048576\n4\n") + b"abcdefg", mode=0o600) + header(b"after") + END
    )  # fmt: skip
    tree = extract(archive=archive)

    found = tree.lstat("f")
    assert (found.st_size, stat.S_IMODE(found.st_mode)) == (size, 0o600)
    assert found.st_blocks * 512 < 64 * 1024
    with (tree.path / "f").open("rb") as content:
        start = content.read(2 << 20)
    assert start.strip(b"\0") == b"abc" + bytes(1048576 - 4096 - 3) + b"defg"
    assert tree.lstat("after").st_size == 0


def test_an_old_sparse_file_is_extracted(extract: Extract) -> None:
    pieces = b"".join(headers.octal(n, 12) for n in (512, 3, 4096, 512)).ljust(96, b"\0")
    tail = pieces + b"\0" + headers.octal(8192, 12)
    tree = extract(
        archive=member(b"abc" + b"x" * 512, name=b"f", type=b"S", magic=headers.GNU, tail=tail) + END
    )

    assert (tree.path / "f").read_bytes() == bytes(512) + b"abc" + bytes(3581) + b"x" * 512 + bytes(3584)


def test_everything_is_counted(extract: Extract) -> None:
    tree = extract(
        directory("d"), file("d/f", b"x" * 10), file("g", b"y"), symlink("l", "g"), hardlink("h", "g")
    )

    assert (tree.extraction.entries, tree.extraction.files, tree.extraction.file_bytes) == (5, 2, 11)


def test_a_default_time_is_a_default_time(extract: Extract) -> None:
    assert extract(file("f")).lstat("f").st_mtime_ns == TIME * 10**9
