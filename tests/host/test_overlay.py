"""Overlays are mounted by both APIs, from directories of any name, and a refusal says why."""

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerfs.errors import MountError
from layerfs.host import overlay as overlay_module
from layerfs.host.libc import syscall
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.mounts import mounts_at
from layerfs.host.namespaces import in_initial_user_namespace
from layerfs.host.overlay import Overlay, by_descriptors, by_option_string, mount_overlay, option_string
from tests.support import mounts

pytestmark = pytest.mark.needs_root

WAYS = [pytest.param(by_descriptors, id="descriptors"), pytest.param(by_option_string, id="option string")]
Way = Callable[[Overlay, Mountpoint], None]


@pytest.fixture
def merged(tmp_path: Path) -> Iterator[Path]:
    with mounts.mountpoint(tmp_path / "merged") as target:
        yield target


def layers(base: Path, *names: str) -> list[bytes]:
    """Make a directory of each name, with a file of its position, and in ``top`` which is topmost."""
    made = []
    for number, name in enumerate(names):
        directory = base / name
        directory.mkdir(parents=True)
        (directory / f"file-{number}").touch()
        (directory / "top").write_text(str(number))
        made.append(os.fsencode(directory))
    return made


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("plain", id="plain"),
        pytest.param("a b", id="space"),
        pytest.param("a:b", id="colon"),
        pytest.param("a,b", id="comma"),
        pytest.param("a\\b", id="backslash"),
        pytest.param("a\nb", id="newline"),
        pytest.param("a\\:,b\\", id="all at once"),
        pytest.param("\udcff", id="no text"),
    ],
)
def test_directories_of_any_name_are_merged_in_order(
    tmp_path: Path, merged: Path, way: Way, name: str
) -> None:
    lowers = layers(tmp_path / name, "one", name, "three")
    upper, work = layers(tmp_path / f"{name}-rw", name, "work")
    for file in os.listdir(work):
        os.unlink(os.path.join(work, os.fsencode(file)))
    for file in os.listdir(upper):
        os.unlink(os.path.join(upper, os.fsencode(file)))
    way(Overlay(lowers, upper, work), Mountpoint.open(merged))
    assert (merged / "top").read_text() == "0"
    assert {"file-0", "file-1", "file-2"} <= set(os.listdir(merged))
    (merged / "new").write_text("new")
    assert os.path.exists(os.path.join(upper, b"new"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["plain", "a:b,c"])
def test_files_without_content_get_it_from_data_only_directories(
    tmp_path: Path, merged: Path, way: Way, name: str
) -> None:
    stubs, other, data, more = (os.fsdecode(path) for path in layers(tmp_path / name, "stubs", "b", "c", "d"))
    for number, directory in enumerate((data, more)):
        (Path(directory) / "ab").mkdir()
        (Path(directory) / "ab" / f"object-{number}").write_text(f"content {number}")
        stub = Path(stubs) / f"stub-{number}"
        stub.touch(0o640)
        os.truncate(stub, len("content 0"))
        os.setxattr(stub, "trusted.overlay.metacopy", b"")
        os.setxattr(stub, "trusted.overlay.redirect", f"/ab/object-{number}".encode())
    lowers, datas = ([os.fsencode(path) for path in some] for some in ((stubs, other), (data, more)))
    way(Overlay(lowers, data=datas), Mountpoint.open(merged))
    assert [(merged / f"stub-{number}").read_text() for number in (0, 1)] == ["content 0", "content 1"]
    assert (merged / "stub-0").stat().st_mode & 0o777 == 0o640
    assert not (merged / "ab").exists()


@pytest.mark.parametrize("way", WAYS)
def test_without_an_upper_it_is_read_only(tmp_path: Path, merged: Path, way: Way) -> None:
    way(Overlay(layers(tmp_path, "a", "b"), options=frozenset({"nosuid", "nodev"})), Mountpoint.open(merged))
    with pytest.raises(OSError, match="Read-only"):
        (merged / "new").write_text("")
    (mount,) = mounts_at(merged)
    assert {b"ro", b"nosuid", b"nodev"} <= set(mount.options)


@pytest.mark.parametrize("count", [2, 127, 500])
def test_many_layers_with_long_names_need_the_new_way(tmp_path: Path, merged: Path, count: int) -> None:
    names = [f"{'x' * 200}-{number}" for number in range(count)]
    lowers = layers(tmp_path / ("y" * 200), *names)
    mount_overlay(Overlay(lowers), Mountpoint.open(merged))
    assert len(os.listdir(merged)) == count + 1
    assert (merged / "top").read_text() == "0"


def test_the_old_way_refuses_what_it_would_cut(tmp_path: Path, merged: Path) -> None:
    lowers = layers(tmp_path, *[f"{'x' * 200}-{number}" for number in range(30)])
    with pytest.raises(MountError, match=r"expected at most 4095"):
        by_option_string(Overlay(lowers), Mountpoint.open(merged))
    assert mounts_at(merged) == []


def test_a_kernel_without_the_new_way_gets_the_old_one(
    tmp_path: Path, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented", name)

    monkeypatch.setattr(overlay_module, "syscall", missing)
    mount_overlay(Overlay(layers(tmp_path, "a", "b")), Mountpoint.open(merged))
    assert (merged / "top").read_text() == "0"


def test_a_kernel_without_descriptors_gets_text(
    tmp_path: Path, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = overlay_module._fsconfig

    def without(context: int, command: int, *rest: bytes | int | None) -> None:
        if command == overlay_module._SET_FD:
            raise OSError(errno.EINVAL, "Invalid argument")
        real(context, command, *rest)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(overlay_module, "_fsconfig", without)
    by_descriptors(Overlay(layers(tmp_path, "a:b", "c\\d")), Mountpoint.open(merged))
    assert (merged / "top").read_text() == "0"


@pytest.mark.parametrize("way", WAYS)
def test_a_refusal_says_where_the_reason_is(tmp_path: Path, merged: Path, way: Way) -> None:
    lowers = layers(tmp_path, "a", "b")
    with pytest.raises(MountError, match="given twice"):
        way(Overlay([lowers[0], lowers[0]]), Mountpoint.open(merged))
    # The work directory must be on the filesystem of the upper one.
    with mounts.tmpfs(tmp_path / "elsewhere"):
        overlay = Overlay(lowers[1:], lowers[0], os.fsencode(tmp_path / "elsewhere"))
        with pytest.raises(MountError, match=r"cannot mount the overlay: .*dmesg"):
            way(overlay, Mountpoint.open(merged))


def test_the_kernels_words_are_read_from_its_descriptor() -> None:
    context = syscall("fsopen", overlay_module._FSOPEN, b"overlay", 1)
    try:
        with pytest.raises(OSError, match="fsconfig"):
            overlay_module._fsconfig(context, overlay_module._SET_STRING, b"nonsense", b"x")
        assert overlay_module._messages(context) == "overlay: Unknown parameter 'nonsense'"
    finally:
        os.close(context)


@pytest.mark.parametrize("way", WAYS)
def test_a_directory_that_is_not_there_is_named(tmp_path: Path, merged: Path, way: Way) -> None:
    with pytest.raises(MountError):
        way(Overlay([*layers(tmp_path, "a"), os.fsencode(tmp_path / "nowhere")]), Mountpoint.open(merged))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda: Overlay([]), "0 lower directories", id="no layer"),
        pytest.param(lambda: Overlay([b"/a"]), "expected two", id="one layer"),
        pytest.param(lambda: Overlay([b"/a"] * 501), "501 lower directories", id="too many"),
        pytest.param(lambda: Overlay([b"/a", b"/b"], upper=b"/u"), "needs a work directory", id="no work"),
        pytest.param(
            lambda: Overlay([b"/a", b"/b"], options=frozenset({"rw"})), "unknown options", id="option"
        ),
    ],
)
def test_what_no_kernel_would_take_is_refused_before(make: Callable[[], Overlay], words: str) -> None:
    with pytest.raises(MountError, match=words):
        make()


def test_the_option_string_is_escaped_for_mount() -> None:
    overlay = Overlay([b"/a:b", b"/c,d\\e"], b"/u:,", b"/w", userxattr=True)
    expected = rb"lowerdir=/a\:b:/c\,d\\e,upperdir=/u:\,,workdir=/w,userxattr"
    assert option_string(overlay) == expected


def test_no_descriptor_is_left(tmp_path: Path, merged: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Mountpoint.open(merged) as target:
        mount_overlay(Overlay(layers(tmp_path, "a", "b")), target)
        with pytest.raises(MountError):
            mount_overlay(Overlay([b"/nowhere", b"/nowhere/else"]), target)
    assert len(os.listdir("/proc/self/fd")) == before


def test_this_test_runs_in_the_initial_namespace_or_not() -> None:
    with open("/proc/self/uid_map", "rb") as file:
        whole = file.read().split() == [b"0", b"0", b"4294967295"]
    assert in_initial_user_namespace() is whole


def test_a_word_of_the_c_library_is_wide_enough() -> None:
    assert ctypes.sizeof(ctypes.c_long) == ctypes.sizeof(ctypes.c_void_p)
