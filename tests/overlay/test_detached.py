"""Overlays that were detached while a process is in them: no table of mounts shows them, and nothing goes."""

import contextlib
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import layerfs
from layerfs.containers import tocs_in_use
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.mounts import mounts_at
from layerfs.host.overlay import Overlay, is_in_use, mount_overlay
from layerfs.oci import Tag
from layerfs.store import ImageStorage
from layerfs.store.overlays import OverlayMount
from layerfs.store.scratch import Scratch
from tests.overlay.scene import command, mounted_quietly
from tests.overlay.test_bell import BASE, FILES, IMAGE, PLAIN, TOP, asked_first
from tests.support import clients, daemon, images, mounts
from tests.support.daemon import Daemon
from tests.support.images import image
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


@pytest.fixture(scope="module")
def pushed(_session_registry: Registry) -> Tag:
    return _session_registry.push("overlay/detached", "1", IMAGE)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Return an empty directory."""
    with mounts.mountpoint(tmp_path / "root") as path:
        yield path


class Inside:
    """A shell that works in a directory and has a file of it open."""

    def __init__(self, directory: Path) -> None:
        self._shell = subprocess.Popen(
            ["sh", "-c", "while read name; do cat $name; printf '\\0'; done"],
            cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def read(self, name: str) -> bytes:
        """Return what is in a file below the directory."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(name.encode() + b"\n")
        self._shell.stdin.flush()
        found = b""
        while not found.endswith(b"\0"):
            found += os.read(self._shell.stdout.fileno(), 1 << 20)
        return found[:-1]

    def leave(self) -> None:
        """End it."""
        self._shell.kill()
        self._shell.communicate()


@contextlib.contextmanager
def inside(directory: Path) -> Iterator[Inside]:
    """Have a process in *directory*."""
    made = Inside(directory)
    try:
        yield made
    finally:
        made.leave()


def scratches(store: Path) -> list[str]:
    """Return the scratches of a store."""
    return os.listdir(store / "overlays")


def collected(store: Path, *words: str) -> None:
    """Remove all images, and all that nothing needs."""
    command("rm", "--all", "--store", store)
    command("gc", "--store", store, *words)


@pytest.mark.parametrize(
    "words",
    [pytest.param((), id="read-only"), pytest.param(("--rw",), marks=pytest.mark.long, id="read-write")],
)
def test_a_process_in_a_detached_lazy_overlay_reads_on(
    mounted: Daemon, pushed: Tag, registry: Registry, root: Path, words: tuple[str, ...]
) -> None:
    store = mounted.store
    command("overlay", "--lazy", "always", *words, "--store", store, str(pushed), root)
    with inside(root) as process:
        assert process.read("etc/motd") == FILES["etc/motd"]

        done = command("overlay", "--umount", "--detach", "--store", store, root)

        assert (
            "stays in the store for the processes in it (layerfs gc removes it once they have left)"
            in done.stderr
        )
        assert mounts.mount_at(root) is None
        another = registry.push("overlay/after", "1", image(PLAIN))
        collected(store)
        command("overlay", "--store", store, str(another), root)
        collected(store)
        with ImageStorage(store) as storage:
            assert tocs_in_use(storage) == {BASE.place.digest, TOP.place.digest}
            assert storage.sweep(max_age=0).total == 0
        for name, content in FILES.items():  # most of them for the first time
            assert process.read(name) == content
        assert (root / "plain").read_bytes() == b"plain", "it has a mount of its own"
        command("overlay", "--umount", "--store", store, root)
        said = daemon.layerfs("status", "--store", store).stdout
        assert f"{root}: no overlay here, but a process is in its overlay, which was detached" in said
        refused = command("overlay", "--umount", "--store", store, root, check=False)
        assert (refused.returncode, "a process is in its overlay" in refused.stderr) == (1, True)
        assert len(scratches(store)) == 1

    def left() -> list[str]:
        """Return what is left of it after a collection; the daemon may still be at work on a layer."""
        collected(store)
        objects = [name for _, _, names in os.walk(store / "objects") for name in names]
        return [*scratches(store), *os.listdir(store / "skeletons"), *objects]

    clients.wait_until(lambda: left() == [])


def test_a_daemon_that_begins_heals_what_is_in_a_detached_overlay(
    mounted: Daemon, pushed: Tag, root: Path, tmp_path: Path
) -> None:
    store = mounted.store
    command("overlay", "--lazy", "always", "--store", store, str(pushed), root)
    with inside(root) as process:
        command("overlay", "--umount", "--detach", "--store", store, root)
        mounted.process.kill()
        mounted.process.wait()
        with daemon.running(store, tmp_path / "another", environment=mounted_quietly(tmp_path)):
            clients.wait_until(lambda: process.read("large") == FILES["large"])


@pytest.mark.long
def test_one_whose_mount_died_is_healed_though_another_mount_lives(
    mounted: Daemon, pushed: Tag, root: Path, tmp_path: Path
) -> None:
    store, quietly = mounted.store, mounted_quietly(tmp_path)
    with daemon.running(store, tmp_path / "another", environment=quietly) as second:
        command("overlay", "--lazy", "always", "--store", store, str(pushed), root)
        asked, _ = asked_first(root, mounted, second)
        with inside(root) as process:
            command("overlay", "--umount", "--detach", "--store", store, root)
            done = command("status", "--heal", "--store", store)
            assert done.stderr == "", "it is asked"
            asked.process.kill()
            asked.process.wait()
            done = command("status", "--heal", "--store", store)
            assert done.stderr == "layerfs: 2 layers that lazy overlays waited for are here\n"
            for name, content in FILES.items():
                assert process.read(name) == content


@pytest.mark.long
def test_with_an_upper_directory_of_ones_own_it_is_the_same(
    mounted: Daemon, pushed: Tag, root: Path, tmp_path: Path
) -> None:
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    own = ("--upper", upper, "--work", work)
    command("overlay", "--lazy", "always", *own, "--store", mounted.store, str(pushed), root)
    (root / "new").write_bytes(b"new")
    with inside(root) as process:
        command("overlay", "--umount", "--detach", "--store", mounted.store, root)
        collected(mounted.store)
        assert process.read("large") == FILES["large"]
        assert len(scratches(mounted.store)) == 1
    collected(mounted.store)
    assert scratches(mounted.store) == []
    assert (upper / "new").read_bytes() == b"new"


def test_a_root_of_the_api_is_kept_as_well(store: Path, registry: Registry, root: Path) -> None:
    layers = [images.layer(images.file(f"api-{number}", b"a")) for number in range(2)]
    whole = registry.push("overlay/detached-api", "1", image(*layers))
    with layerfs.Store.open(store) as opened:
        made = opened.image(str(whole)).mount(root, lazy="never")
        with inside(root) as process:
            made.close(detach=True)
            opened.close()
            collected(store)
            assert process.read("api-0") == b"a"


@pytest.mark.parametrize("umounted", [False, True])
def test_nothing_is_kept_for_nobody(
    store: Path, registry: Registry, root: Path, monkeypatch: pytest.MonkeyPatch, umounted: bool
) -> None:
    """The process leaves in the moment before the overlay would be detached, or another one unmounts it."""
    layers = [images.layer(images.file(f"nobody-{number}", b"n")) for number in range(2)]
    whole = registry.push("overlay/detached-nobody", "1", image(*layers))
    command("overlay", "--lazy", "never", "--store", store, str(whole), root)
    note = Scratch.note

    with inside(root) as process:

        def note_and_leave(scratch: Scratch, lowers: Iterable[str]) -> None:
            note(scratch, lowers)
            process.leave()
            if umounted:
                clients.run("umount", root)

        monkeypatch.setattr(Scratch, "note", note_and_leave)
        done = command("overlay", "--umount", "--detach", "--store", store, root, check=False)

    assert (done.returncode, "nothing is mounted" in done.stderr) == (int(umounted), umounted)
    assert "until the next boot" not in done.stderr
    assert scratches(store) == []
    collected(store)
    assert os.listdir(store / "extracted") == []


def test_a_read_only_lazy_overlay_stays_read_only(mounted: Daemon, pushed: Tag, root: Path) -> None:
    """Its upper directory is there for what the kernel says of it."""
    command("overlay", "--lazy", "always", "--store", mounted.store, str(pushed), root)
    found = next(filter(None, map(OverlayMount.of, mounts_at(root))))
    assert not found.writable
    with pytest.raises(OSError, match="Read-only file system"):
        (root / "new").touch()
    refused = clients.run("mount", "-o", "remount,bind,rw", root)
    with pytest.raises(OSError, match="Read-only file system"):
        (root / "new").touch()
    assert refused.returncode in (0, 32)


def test_the_kernel_says_how_long_an_overlay_lives(tmp_path: Path, root: Path) -> None:
    places = [tmp_path / name for name in ("lower", "upper", "work")]
    for place in places:
        place.mkdir()
    lower, upper, work = map(os.fsencode, places)
    aside = work, lower
    assert not is_in_use(upper)
    assert not is_in_use(upper, aside)
    with Mountpoint.open(root) as target:
        mount_overlay(Overlay([lower], upper, work, options=frozenset({"ro"})), target)
        assert is_in_use(upper)
        assert is_in_use(upper, (os.fsencode(tmp_path), lower))
        with inside(root) as process:
            target.unmount(lazy=True)
            assert is_in_use(upper)
            process.leave()
        assert not is_in_use(upper)
    assert not is_in_use(upper, aside)
    assert os.listdir(upper) == []
    with pytest.raises(FileNotFoundError):
        is_in_use(upper + b"/absent")


def test_of_one_without_a_scratch_all_is_kept_until_the_next_boot(
    mounted: Daemon, registry: Registry, root: Path
) -> None:
    """Nobody knows how long it lives: it is whole, and read-only."""
    store, layers = mounted.store, [images.layer(images.file(f"whole-{number}", b"w")) for number in range(2)]
    whole = registry.push("overlay/detached-whole", "1", image(*layers))
    command("overlay", "--store", store, str(whole), root)
    command("overlay", "--umount", "--detach", "--store", store, root)
    assert not (store / "overlays").exists(), "nobody was in it"

    command("overlay", "--store", store, str(whole), root)
    with inside(root) as process:
        said = command("overlay", "--umount", "--detach", "--store", store, root).stderr
        assert "stays in the store until the next boot" in said
        collected(store)
        assert process.read("whole-1") == b"w"
    refused = command("overlay", "--umount", "--store", store, root, check=False)
    assert "a process may be until the next boot in its overlay" in refused.stderr
    collected(store)
    assert len(os.listdir(store / "extracted")) == 4

    (lowers,) = (store / "overlays").glob("*/lowers")
    lowers.write_text("another boot\n" + lowers.read_text().partition("\n")[2])
    collected(store)
    assert scratches(store) == os.listdir(store / "extracted") == []
