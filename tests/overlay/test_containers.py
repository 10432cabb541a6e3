"""What programs expect of a root directory holds in a container on our lowerdirs, native and FUSE."""

import ctypes
import mmap
import os
import select
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.overlay.scene import BUSYBOX, ROOT, Scene, in_container
from tests.support import images, mounts

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

NET_RAW = 1 << 13
PAGES = os.urandom(3 * mmap.PAGESIZE)


def capability(mask: int) -> bytes:
    """Return a ``security.capability`` that permits *mask*, effective at once (capabilities(7))."""
    return struct.pack("<5I", 0x02000001, mask, 0, 0, 0)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A static program that says what it may do."""
    made = tmp_path_factory.mktemp("probe") / "probe"
    source = Path(__file__).with_name("probe.c")
    subprocess.run(["gcc", "-static", "-O1", "-o", made, source], check=True)
    return made.read_bytes()


@pytest.fixture(scope="module", params=["native", "fuse"])
def container(
    request: pytest.FixtureRequest, scene: Scene, probe: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A container with an upper directory on three layers."""
    base = images.layer(
        *BUSYBOX,
        images.file("bin/plain", probe, mode=0o755),
        images.file("bin/setuid", probe, mode=0o4755),
        images.file("bin/setgid", probe, mode=0o2755),
        images.file("bin/capable", probe, mode=0o755, xattrs={"security.capability": capability(NET_RAW)}),
        images.directory("data"),
        images.file("data/pages", PAGES),
        images.file("data/one", b"linked"),
        images.hardlink("data/two", "data/one"),
        images.hardlink("three", "data/one"),
        *(images.directory(f"{name}/deep/er") for name in ("moved", "merged", "removed")),
        *(images.file(f"{name}/deep/er/file", b"base") for name in ("moved", "merged", "removed")),
    )
    middle = images.layer(ROOT, images.file("merged/deep/more", b"middle"), images.file("removed/more"))
    top = images.layer(
        ROOT, images.whiteout("merged/deep/er"), images.directory("removed"), images.opaque("removed/deep")
    )
    place = scene.place(f"container-{request.param}", base, middle, top)
    lowers = [Path(path) for path in place.lowerdirs()] if request.param == "native" else place.fuse_lowers()
    assert (place.path / "rootfs/three").exists()
    with mounts.overlay(lowers, tmp_path_factory.mktemp(request.param)) as merged:
        yield merged


@pytest.mark.parametrize(
    ("program", "user", "said"),
    [
        pytest.param("plain", 1000, "1000 0", id="a plain program gains nothing"),
        pytest.param("setuid", 1000, "0 ", id="a setuid program runs as its owner"),
        pytest.param("capable", 1000, f"1000 {NET_RAW:x}", id="file capabilities are granted"),
    ],
)
def test_programs_run_with_the_rights_of_their_files(
    container: Path, program: str, user: int, said: str
) -> None:
    assert in_container(container, f"/bin/{program}", user=user).stdout.startswith(said)


def test_modes_and_capabilities_survive_a_copy_to_the_upper(container: Path) -> None:
    for program, said in (("capable", f"1000 {NET_RAW:x}"), ("setuid", "0 ")):
        copy = container / f"bin/{program}"
        os.utime(copy)  # copies it up
        assert in_container(container, f"/bin/{program}", user=1000).stdout.startswith(said)
    assert (container / "bin/setgid").stat().st_mode & 0o7777 == 0o2755


def test_scripts_and_links_to_programs_run(container: Path) -> None:
    script = container / "bin/script"
    script.write_text("#!/bin/sh\necho script $1\n")
    script.chmod(0o755)

    assert in_container(container, "/bin/script", "ran").stdout == "script ran\n"
    assert in_container(container, "/bin/cat", "/data/two").stdout == "linked"


def test_files_are_mapped_and_mappings_outlive_a_copy_up(container: Path) -> None:
    path = container / "data/pages"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as lower:
        assert lower[:] == PAGES
        with path.open("r+b") as writable, mmap.mmap(writable.fileno(), 0) as upper:
            upper[:4] = b"mine"
            upper.flush()
            assert lower[:] == PAGES  # of the lower file, as overlayfs documents
    assert path.read_bytes() == b"mine" + PAGES[4:]


def test_inotify_reports_changes_of_the_upper(container: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        modify, create = 0x2, 0x100
        assert libc.inotify_add_watch(fd, os.fsencode(container / "data"), modify | create) > 0
        in_container(container, "/bin/sh", "-c", "echo new > /data/watched")
        assert select.select([fd], [], [], 60)[0]
        events = os.read(fd, 4096)
        assert b"watched" in events
        assert struct.unpack_from("iI", events)[1] & create
    finally:
        os.close(fd)


def test_flock_excludes_others(container: Path) -> None:
    locked = container / "data/locked"
    locked.touch()
    hold = ["flock", "-n", str(locked), "flock", "-n", str(locked), "true"]
    assert subprocess.run(hold).returncode == 1
    assert subprocess.run([*hold[:3], "true"]).returncode == 0


def test_df_shows_the_disk_that_is_written_to(container: Path) -> None:
    expected, found = os.statvfs(container.parent / "upper"), os.statvfs(container)
    assert found.f_blocks == expected.f_blocks > 0
    shown = subprocess.run(["df", container], capture_output=True, text=True, check=True).stdout
    assert str(container) in shown


def test_hard_links_are_counted_as_in_the_image(container: Path) -> None:
    links = [os.stat(container / name) for name in ("data/one", "data/two", "three")]
    assert {status.st_nlink for status in links} == {3}
    assert len({(status.st_dev, status.st_ino) for status in links}) == 1
    assert (container / "data/pages").stat().st_nlink == 1


@pytest.mark.parametrize("name", ["moved", "merged"])
def test_a_directory_of_the_image_can_be_renamed(container: Path, name: str) -> None:
    # Without redirect_dir overlayfs refuses with EXDEV, and mv copies.
    subprocess.run(["mv", container / name, container / f"{name}-renamed"], check=True)

    found = {str(path.relative_to(container)) for path in (container / f"{name}-renamed").rglob("*")}
    expected = {"moved": {"deep", "deep/er", "deep/er/file"}, "merged": {"deep", "deep/more"}}[name]
    assert found == {f"{name}-renamed/{path}" for path in expected}
    assert not (container / name).exists()


def test_a_merged_directory_can_be_removed_and_stays_empty_when_made_again(container: Path) -> None:
    removed = container / "removed"
    assert sorted(os.listdir(removed)) == ["deep", "more"]
    assert os.listdir(removed / "deep") == []

    subprocess.run(["rm", "-rf", removed], check=True)

    assert not removed.exists()
    removed.mkdir()
    assert os.listdir(removed) == []
    (removed / "deep").mkdir()
    assert os.listdir(removed / "deep") == []


def test_everything_can_be_removed(scene: Scene, tmp_path: Path) -> None:
    base = images.layer(ROOT, *(images.file(f"{a}/{b}/file") for a in "abc" for b in "def"))
    middle = images.layer(ROOT, images.opaque("a"), images.file("a/new"), images.whiteout("b/e"))
    top = images.layer(ROOT, images.whiteout("b/f"), images.whiteout("c"), images.file("c/again/x"))
    place = scene.place("emptied", base, middle, top)
    with mounts.overlay(place.lowerdir(), tmp_path) as merged:
        for name in os.listdir(merged):
            shutil.rmtree(merged / name)
        assert os.listdir(merged) == []
