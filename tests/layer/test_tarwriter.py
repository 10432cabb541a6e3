"""What the writer of headers writes, the reader and an independent reader understand."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from layerfs.layer import tarwriter
from layerfs.layer.budgets import Budgets
from layerfs.layer.member import Member, Type
from layerfs.layer.tar import TarReader
from tests.support.images import compress

_names = st.binary(min_size=1, max_size=320).filter(
    lambda name: b"\0" not in name and not name.endswith(b"/")
)
_types = st.sampled_from([kind for kind in Type if kind is not Type.SOCKET])


@st.composite
def members(draw: st.DrawFn) -> Member:
    """Draw any member without content, but with any size a file may claim to have."""
    kind = draw(_types)
    is_device = kind in (Type.CHARACTER, Type.BLOCK)
    size = draw(st.integers(0, 1 << 40)) if kind is Type.FILE else 0
    return Member(
        name=draw(_names),
        type=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, (1 << 32) - 2)),
        gid=draw(st.integers(0, (1 << 32) - 2)),
        mtime_ns=draw(st.integers(-(10**18), 10**19)),
        size=size,
        stored=size,
        link=draw(_names) if kind in (Type.SYMLINK, Type.HARDLINK) else b"",
        major=draw(st.integers(0, 4095)) if is_device else 0,
        minor=draw(st.integers(1, (1 << 20) - 1)) if is_device else 0,
        xattrs=draw(
            st.none()
            | st.dictionaries(
                st.binary(min_size=1, max_size=20)
                .filter(lambda name: not set(name) & set(b"\0="))
                .map(lambda name: b"user." + name),
                st.binary(min_size=1, max_size=100),
                min_size=1,
                max_size=3,
            )
        ),
    )


class Blocks:
    """Bytes as the reader wants them."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def block(self) -> bytes:
        return self._file.read(512)

    def read(self, size: int) -> bytes:
        found = self._file.read(size)
        self._file.seek(-size % 512, io.SEEK_CUR)
        return found


@given(members())
def test_the_reader_gives_back_what_was_written(member: Member) -> None:
    header = tarwriter.header(member)
    assert len(header) % 512 == 0
    read = TarReader(Blocks(header + tarwriter.END), Budgets()).next()
    assert read == replace(member, name=read.name if read else b"")
    assert read is not None
    assert read.name.rstrip(b"/") == member.name.rstrip(b"/")


@given(st.lists(st.tuples(members(), st.binary(max_size=1500)), max_size=5))
def test_tarfile_reads_the_same_archive(entries: list[tuple[Member, bytes]]) -> None:
    archive = b""
    for member, content in entries:
        member.size = member.stored = len(content) if member.type is Type.FILE else 0
        archive += tarwriter.header(member)
        if member.type is Type.FILE:
            archive += content + tarwriter.padding(len(content))
    raw = io.BytesIO(archive + tarwriter.END)
    with tarfile.open(fileobj=raw, encoding="utf-8", errors="surrogateescape") as opened:
        found = opened.getmembers()
    assert [(info.size, info.uid, info.gid, info.mode) for info in found] == [
        (member.size, member.uid, member.gid, member.mode) for member, _ in entries
    ]


def test_a_plain_member_is_one_block_and_the_same_each_time() -> None:
    member = Member(b"etc/motd", Type.FILE, 0o644, 0, 0, 1_700_000_000 * 10**9, 5, 5)
    assert len(tarwriter.header(member)) == 512
    assert tarwriter.header(member) == tarwriter.header(replace(member))
    assert len(compress(tarwriter.header(member), "gzip")) < 200


def test_what_no_plain_header_can_say_is_said_in_records() -> None:
    member = Member(
        name=b"d" * 120 + b"/" + b"\xff" * 120,
        type=Type.FILE,
        mode=0o644,
        uid=1 << 31,
        gid=1 << 31,
        mtime_ns=-1_500_000_000,
        size=1 << 40,
        stored=1 << 40,
        link=b"",
        major=0,
        minor=0,
        xattrs={b"user.b": b"2", b"user.a": b"1" * 90},
    )

    header = tarwriter.header(member)

    for record in (
        b"hdrcharset=BINARY\n", b"path=" + member.name, b"uid=2147483648\n", b"gid=2147483648\n",
        b"size=1099511627776\n", b"mtime=-1.5\n", b"SCHILY.xattr.user.a=" + b"1" * 90 + b"\n",
    ):  # fmt: skip
        assert record in header


def test_the_largest_device_number_of_linux_fits_a_plain_header() -> None:
    member = Member(b"dev", Type.BLOCK, 0o600, 0, 0, 0, 0, 0, major=4095, minor=(1 << 20) - 1)

    with tarfile.open(fileobj=io.BytesIO(tarwriter.header(member) + bytes(1024))) as archive:
        (found,) = archive
    assert (found.devmajor, found.devminor) == (4095, (1 << 20) - 1)


@pytest.mark.parametrize(
    ("name", "link", "blocks"),
    [
        pytest.param(b"d" * 99 + b"/" + b"f" * 100, b"", 1, id="a name that splits needs no record"),
        pytest.param(b"n" * 101, b"", 3, id="a name without a slash"),
        pytest.param(b"n", b"l" * 101, 3, id="a long target"),
        pytest.param(b"n", b"l" * 987, 4, id="a record whose length grows by counting itself"),
    ],
)
def test_long_names_and_targets(name: bytes, link: bytes, blocks: int) -> None:
    written = Member(name, Type.SYMLINK, 0o777, 0, 0, 0, 0, 0, link=link)
    header = tarwriter.header(written)

    assert len(header) == blocks * 512
    with tarfile.open(fileobj=io.BytesIO(header + tarwriter.END)) as archive:
        (found,) = archive
    assert (found.name.encode(), found.linkname.encode()) == (name, link)
