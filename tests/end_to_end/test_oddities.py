"""Rare ways to read a file or a directory through the mount give what native disk gives."""

import ctypes
import errno
import mmap
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import daemon, images
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_NAMES = 3000
_CONTENT = bytes(range(256)) * 1000 + b"the end"
_HOLE = 4 << 20
_LONG = b"/".join([b"d" * 250] * 14)
"""With the mountpoint in front, just below PATH_MAX, and deeper than a path can lead with more in front."""
_SPARSE = {
    "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "sparse",
    "GNU.sparse.realsize": str(_HOLE),
}  # fmt: skip
LAYER = images.layer(
    images.file("file", _CONTENT),
    images.file("empty"),
    images.file("GNUSparseFile.0/sparse", b"1\n0\n4096\n".ljust(512, b"\0") + b"x" * 4096, pax=_SPARSE),
    *(images.file(f"many/{number:05}") for number in range(_NAMES)),
    images.file(_LONG + b"/leaf", b"far away"),
)


@pytest.fixture(scope="module")
def shown(_session_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The layer through the mount, extracted."""
    reference = _session_registry.push("e2e/oddities", "1", images.image(LAYER))
    place = tmp_path_factory.mktemp("oddities")
    with daemon.running(place / "store", place / "mount") as running:
        path = running.images / str(reference) / "layers/00/diff"
        assert (path / "empty").read_bytes() == b""
        yield path.resolve()


@contextmanager
def opened(path: Path | bytes, flags: int = os.O_RDONLY, dir_fd: int | None = None) -> Iterator[int]:
    fd = os.open(path, flags, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def test_o_direct_reads_the_bytes_past_the_page_cache(shown: Path) -> None:
    with opened(shown / "file", os.O_RDONLY | os.O_DIRECT) as fd, mmap.mmap(-1, 512 * 1024) as room:
        assert os.preadv(fd, [room], 0) == len(_CONTENT)
        assert room[: len(_CONTENT)] == _CONTENT
        last = len(_CONTENT) // 4096 * 4096
        assert os.preadv(fd, [memoryview(room)[:4096]], last) == len(_CONTENT) - last


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDONLY | os.O_DIRECT], ids=["cached", "direct"])
def test_reading_beyond_the_end_gives_nothing(shown: Path, flags: int) -> None:
    with opened(shown / "file", flags) as fd, mmap.mmap(-1, 4096) as room:
        for offset in (len(_CONTENT) // 4096 * 4096 + 4096, 1 << 40, (1 << 63) - 8192):
            assert os.preadv(fd, [room], offset) == 0


def test_mapped_files_show_the_bytes_and_zeros_behind_them(shown: Path) -> None:
    with opened(shown / "file") as fd:
        for kind in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
            with mmap.mmap(fd, 0, kind, mmap.PROT_READ) as mapped:
                assert mapped[:] == _CONTENT
        with pytest.raises(PermissionError), mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_WRITE):
            pass


def test_holes_are_sought_as_the_kernel_promises(shown: Path) -> None:
    """A filesystem may say that all is data; what it says must hold."""
    with opened(shown / "sparse") as fd:
        data = os.lseek(fd, 0, os.SEEK_DATA)
        hole = os.lseek(fd, data, os.SEEK_HOLE)
        assert data == 0
        assert 4096 <= hole <= _HOLE
        with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
            os.lseek(fd, _HOLE, os.SEEK_DATA)
        assert os.pread(fd, 8192, 0) == b"x" * 4096 + bytes(4096)


def test_a_path_of_nearly_path_max_is_reached_and_a_longer_one_is_refused(shown: Path) -> None:
    with opened(shown, os.O_PATH | os.O_DIRECTORY) as root:
        with opened(_LONG + b"/leaf", dir_fd=root) as fd:
            assert os.read(fd, 100) == b"far away"
        with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)), opened(_LONG * 2, dir_fd=root):
            pass
        with pytest.raises(FileNotFoundError), opened(b"n" * 256, dir_fd=root):
            pass  # no layer has such a name
    found = subprocess.run(["find", shown, "-name", "leaf", "-size", "1"], capture_output=True, check=True)
    assert found.stdout.endswith(b"/leaf\n")


class _Entry(ctypes.Structure):
    """glibc's struct dirent on 64-bit Linux."""

    _fields_ = (
        ("d_ino", ctypes.c_uint64),
        ("d_off", ctypes.c_int64),
        ("d_reclen", ctypes.c_uint16),
        ("d_type", ctypes.c_uint8),
        ("d_name", ctypes.c_char * 256),
    )


@contextmanager
def stream(path: Path) -> Iterator[tuple[ctypes.CDLL, ctypes.c_void_p]]:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = ctypes.c_void_p
    libc.readdir.restype = ctypes.POINTER(_Entry)
    libc.telldir.restype = ctypes.c_long
    directory = ctypes.c_void_p(libc.opendir(os.fsencode(path)))
    assert directory.value
    try:
        yield libc, directory
    finally:
        libc.closedir(directory)


def test_seekdir_goes_back_to_any_place_that_telldir_said(shown: Path) -> None:
    with stream(shown / "many") as (libc, directory):
        places, names = [], []
        while True:
            place = libc.telldir(directory)
            entry = libc.readdir(directory)
            if not entry:
                break
            places.append(place)
            names.append(entry.contents.d_name)
        assert len(set(names)) == len(names) == _NAMES + 2
        for number in (0, 1, _NAMES, 7, _NAMES // 2, 2, _NAMES + 1):
            libc.seekdir(directory, ctypes.c_long(places[number]))
            assert libc.readdir(directory).contents.d_name == names[number]
        libc.rewinddir(directory)
        assert libc.readdir(directory).contents.d_name == names[0]


def test_a_listing_goes_on_while_the_kernel_forgets_what_it_listed(shown: Path) -> None:
    with os.scandir(shown / "many") as entries:
        names = [next(entries).name for _ in range(_NAMES // 2)]
        Path("/proc/sys/vm/drop_caches").write_text("2")
        names += [entry.name for entry in entries]
    assert sorted(names) == [f"{number:05}" for number in range(_NAMES)]


class _Handle(ctypes.Structure):
    """struct file_handle with room for the longest."""

    _fields_ = (("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("handle", ctypes.c_ubyte * 128))


def test_a_file_handle_leads_to_the_file_or_is_refused(shown: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    handle, mount = _Handle(bytes=128), ctypes.c_int()
    if libc.name_to_handle_at(
        -100, os.fsencode(shown / "file"), ctypes.byref(handle), ctypes.byref(mount), 0
    ):
        assert ctypes.get_errno() == errno.EOPNOTSUPP
        return
    with opened(shown, os.O_RDONLY | os.O_DIRECTORY) as root:
        fd = libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)
        if fd < 0:
            assert ctypes.get_errno() in (errno.ESTALE, errno.EOPNOTSUPP)
            return
    try:
        assert os.pread(fd, len(_CONTENT), 0) == _CONTENT
    finally:
        os.close(fd)


def test_copies_within_the_kernel_give_the_bytes(shown: Path, tmp_path: Path) -> None:
    with opened(shown / "file") as source, (tmp_path / "sent").open("wb") as sent:
        assert os.sendfile(sent.fileno(), source, 0, len(_CONTENT)) == len(_CONTENT)
    subprocess.run(["cp", "--reflink=auto", shown / "file", tmp_path / "copied"], check=True)

    assert (tmp_path / "sent").read_bytes() == (tmp_path / "copied").read_bytes() == _CONTENT
